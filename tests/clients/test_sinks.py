"""Sinks with clients that nobody here wrote: the verifier of Standard Webhooks, paho for MQTT, nats-py for NATS."""

import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import nats
import paho.mqtt.client as mqtt
import pytest
from aiohttp import web
from feed import LIMIT, Feed
from peer import Peer, connect
from scene import Scene
from server import Server, free_port
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

ZONE = {"name": "everywhere", "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}
OPTIONS = {"return": "results", "zones": [ZONE]}


@contextmanager
def broker(program: str, *words: str) -> Iterator[None]:
    """A broker, for as long as it is needed; its last word is its port."""
    path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin")
    if path is None:
        assert os.environ.get("CI") != "true", f"{program} is not there"
        pytest.skip(f"{program} is not there")
    process = subprocess.Popen([path, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        reachable = threading.Event()

        def look() -> None:
            while process.poll() is None and not reachable.is_set():
                try:
                    socket.create_connection(("127.0.0.1", int(words[-1])), timeout=1).close()
                    reachable.set()
                except OSError:
                    pass

        threading.Thread(target=look, daemon=True).start()
        assert reachable.wait(LIMIT), f"{program} did not start"
        yield
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, Feed]]:
    """A receiver of webhooks, and what it got: headers and body."""
    got = Feed()

    async def receive(request: web.Request) -> web.Response:
        got.add((dict(request.headers), await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/hook", got
    finally:
        await runner.cleanup()


@contextmanager
def serving(sink: dict) -> Iterator[Server]:
    server = Server(sinks=json.dumps([sink]), shutdown__grace_ms=1000)
    try:
        yield server
    finally:
        server.stop()


async def test_webhooks_pass_the_check_of_standard_webhooks(http: aiohttp.ClientSession, scene: Scene) -> None:
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "secret"
        file.write_text(secret + "\n")
        async with receiver() as (url, got):
            sink = {"name": "hooks", "type": "webhook", "url": url, "secret_file": str(file), "send": ["events", "results"]}
            with serving(sink) as server:
                async with Peer(scene, "VP8") as peer:
                    session = await connect(http, server.url, peer, OPTIONS)
                    kinds = lambda it: {json.loads(body)["type"] for _, body in it}
                    await got.until(lambda it: {"session_started", "zone_entered", "result"} <= kinds(it), "webhooks")
                    async with http.delete(f"{server.url}/v1/sessions/{session}") as answer:
                        assert answer.status == 200
                    await got.until(lambda it: "session_ended" in kinds(it), "the end")
        check = Webhook(secret)
        for headers, body in got:
            message = check.verify(body, {key.lower(): value for key, value in headers.items()})
            assert message["session_id"] == session and message["data"]["type"] == message["type"]
            assert headers["webhook-id"] == message["id"]
        headers, body = got[0]
        with pytest.raises(WebhookVerificationError):
            check.verify(body + b" ", {key.lower(): value for key, value in headers.items()})


async def test_paho_sees_a_session_come_and_go(http: aiohttp.ClientSession, scene: Scene) -> None:
    port = free_port()
    with broker("mosquitto", "-p", str(port)):
        loop, got, ready = asyncio.get_running_loop(), Feed(), asyncio.Event()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.on_connect = lambda client, *_: client.subscribe("eyes/#")
        client.on_subscribe = lambda *_: loop.call_soon_threadsafe(ready.set)
        client.on_message = lambda _, __, it: loop.call_soon_threadsafe(got.add, (it.topic, it.payload, it.retain))
        client.connect("127.0.0.1", port)
        client.loop_start()
        try:
            async with asyncio.timeout(LIMIT):
                await ready.wait()
            sink = {"name": "bus", "type": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "topic_prefix": "eyes"}
            with serving(sink) as server:
                async with Peer(scene, "VP8") as peer:
                    session = await connect(http, server.url, peer, OPTIONS)
                    base = f"eyes/sessions/{session}"
                    counted = lambda it: any(topic == f"{base}/zones/everywhere/count" and int(count) for topic, count, _ in it)
                    await got.until(counted, "a count")
                    async with http.delete(f"{server.url}/v1/sessions/{session}") as answer:
                        assert answer.status == 200
                    gone = (f"{base}/state", b"", False)
                    await got.until(lambda it: gone in it, "the removal of what was kept")
            await got.until(lambda it: ("eyes/status", b"offline", False) in it, "the farewell")
            events = [json.loads(payload) for topic, payload, _ in got if topic == f"{base}/events"]
            assert {"session_started", "zone_entered", "session_ended"} <= {event["type"] for event in events}
        finally:
            client.loop_stop()
            client.disconnect()


async def test_nats_py_gets_events_and_results(http: aiohttp.ClientSession, scene: Scene) -> None:
    port = free_port()
    with broker("nats-server", "-a", "127.0.0.1", "-p", str(port)):
        client, got = await nats.connect(f"nats://127.0.0.1:{port}"), Feed()

        async def receive(message) -> None:
            got.add((message.subject, message.headers["Nats-Msg-Id"], json.loads(message.data)))

        await client.subscribe("eyes.>", cb=receive)
        await client.flush()
        url = f"nats://127.0.0.1:{port}"
        sink = {"name": "bus", "type": "nats", "url": url, "subject_prefix": "eyes", "send": ["events", "results"]}
        with serving(sink) as server:
            async with Peer(scene, "VP8") as peer:
                session = await connect(http, server.url, peer, OPTIONS)
                kinds = lambda it: {message["type"] for _, _, message in it}
                await got.until(lambda it: {"session_started", "zone_entered", "result"} <= kinds(it), "messages")
        # The server has stopped, and has told of the end before.
        await got.until(lambda it: "session_ended" in kinds(it), "the end")
        for subject, id, message in got:
            kind = "results" if message["type"] == "result" else "events"
            assert (subject, id) == (f"eyes.sessions.{session}.{kind}", message["id"])
        await client.close()
