"""Two servers that share a registry of sessions: what is asked of one about the other's sessions, and what happens when a
server or the registry goes away."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from feed import LIMIT
from peer import SUBPROTOCOL, Peer, Signal, connect
from scene import Scene
from server import Server, command, free_port
from test_whep import metric, viewers
from whip import SDP, Resource, post

SECRET = "what all servers of the cluster know"
TOKENS = "a secret of at least thirty-two bytes"
LEASE_MS = 2000


class Redis:
    """A registry of its own, which listens on a socket of the file system alone."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.socket = Path(self.folder.name, "redis.sock")
        self.url = f"redis+unix://{self.socket}"
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        words = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no", "--dir", self.folder.name]
        self.process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + LIMIT
        while self.ask("PING") != "PONG":
            assert time.monotonic() < deadline, "redis-server does not answer"

    def ask(self, *words: str) -> str:
        return subprocess.run(["redis-cli", "-s", self.socket, *words], capture_output=True, text=True).stdout.strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def tell(self, session: str, entry: str) -> None:
        assert self.ask("SET", f"saccade:session:{session}", entry, "EX", "60") == "OK"

    def owner(self, session: str) -> str | None:
        """Name of the server that has this session."""
        entry = self.ask("GET", f"saccade:session:{session}")
        return json.loads(entry)["name"] if entry else None

    async def until(self, session: str, owner: str | None, limit: float = LIMIT) -> None:
        async with asyncio.timeout(limit):
            while await asyncio.to_thread(self.owner, session) != owner:
                pass


class Pair:
    """Two servers, `a` and `b`, and their registry."""

    def __init__(self, **settings: object) -> None:
        if not shutil.which("redis-server"):
            assert os.environ.get("CI") != "true", "there is no redis-server"
            pytest.skip("there is no redis-server")
        self.redis = Redis()
        self.ports = {name: free_port() for name in "ab"}
        self.a, self.b = (self.start(name, **settings) for name in "ab")

    def start(self, name: str, **settings: object) -> Server:
        defaults = {
            "cluster__redis_url": self.redis.url,
            "cluster__name": name,
            "cluster__listen": f"127.0.0.1:{self.ports[name]}",
            "cluster__advertise": f"http://127.0.0.1:{self.ports[name]}",
            "cluster__secret": SECRET,
            "cluster__lease_ms": LEASE_MS,
            "shutdown__grace_ms": 500,
        }
        return Server(**(defaults | settings))

    def peers(self, name: str) -> str:
        """Where a server listens for the other."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def stop(self) -> None:
        try:
            for server in (self.a, self.b):
                # One that a test has killed said nothing.
                if server.process.returncode != -signal.SIGKILL:
                    server.stop()
        finally:
            self.redis.kill()
            self.redis.folder.cleanup()


@pytest.fixture(scope="module")
def shared() -> Iterator[Pair]:
    pair = Pair(http__trusted_proxies="127.0.0.1", limits__sessions_per_address=1)
    yield pair
    pair.stop()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.stop()


def since(address: str) -> dict[str, str]:
    """What a proxy says of its client."""
    return {"X-Forwarded-For": address}


async def status(http: aiohttp.ClientSession, url: str, method: str = "GET", **more) -> tuple[int, str | None]:
    """Status, and code of the problem if it is one."""
    async with http.request(method, url, **more) as answer:
        is_problem = answer.content_type == "application/problem+json"
        return answer.status, (await answer.json(content_type=None))["code"] if is_problem else None


async def test_a_session_is_watched_and_ended_through_the_other_server(shared: Pair, http, scene: Scene) -> None:
    a, b = shared.a, shared.b
    async with Peer(scene) as peer, viewers(3) as (first, second, third):
        session = await connect(http, a.url, peer, headers=since("198.51.100.1"))
        await peer.results.more(2, "results")
        async with http.get(f"{b.url}/v1/sessions/{session}") as answer:
            view = await answer.json()
            assert (answer.status, view["session_id"], view["state"]) == (200, session, "connected")
            assert answer.headers["cache-control"] == "no-store"
            assert len(answer.headers.getall("content-security-policy")) == 1
        async with http.get(f"{b.url}/v1/sessions") as answer:
            assert await answer.json() == [], "a list is of one server's own"

        async with http.get(f"{b.url}/v1/sessions/{session}/results") as stream:
            assert (stream.status, stream.content_type) == (200, "text/event-stream")
            told = []
            async for line in stream.content:
                if line.startswith(b"data:"):
                    told.append(json.loads(line[5:]))
                if len(told) == 3:
                    break
            assert {it["session_id"] for it in told} == {session}
        async with http.get(f"{b.url}/v1/sessions/{session}/events") as stream:
            assert (stream.status, stream.content_type) == (200, "text/event-stream")

        # A viewer's address is the one that its own server was told, not that of this server.
        http.headers.update(since("198.51.100.7"))
        await first.join(http, b, session, trickle=True)
        await first.pictures.more(3, "pictures through the other server's signaling")
        url = f"{b.url}/v1/whep/{session}"
        assert await status(http, url, "POST", data=await second.offer(), headers=SDP) == (429, "capacity")
        http.headers.update(since("198.51.100.8"))
        await third.join(http, b, session)
        await third.pictures.more(3, "pictures of another address")
        assert await first.resource.delete() == 200
        assert await first.resource.delete() == 404

        assert await status(http, f"{b.url}/v1/whep/{session}", "POST", data=b"x" * 100_000, headers=SDP) == (413, "too_large")
        assert await status(http, f"{b.url}/v1/sessions/{session}", "DELETE") == (200, None)
        for server in (a, b):
            assert await status(http, f"{server.url}/v1/sessions/{session}") == (404, "not_found")
        await shared.redis.until(session, None)
        assert await metric(http, b, 'saccade_cluster_forwarded_total{kind="http",outcome="answered"}') >= 8
        assert await metric(http, a, 'saccade_cluster_received_total{outcome="accepted"}') >= 8


async def test_an_encoder_trickles_through_the_other_server(shared: Pair, http, scene: Scene) -> None:
    http.headers.update(since("198.51.100.2"))
    async with Peer(scene, "VP8") as peer:
        made = await post(http, f"{shared.a.url}/v1/whip?return=results", await peer.offer())
        resource = Resource(http, made.url.replace(shared.a.url, shared.b.url), made.tag, made.answer, made.links)
        assert resource.url.startswith(shared.b.url)
        await resource.trickle(peer.pc, [it["candidate"] for it in peer.trickled()])
        await peer.answer(made.answer)
        await peer.results.more(3, "results")
        code, _, body = await resource.patch("a=end-of-candidates\r\n", tag='"another"')
        assert (code, json.loads(body)["code"]) == (412, "precondition_failed")
        code, headers, _ = await resource.patch("m=audio", **{"Content-Type": "text/plain"})
        assert code == 415 and headers.getall("accept-patch") == ["application/trickle-ice-sdpfrag"]
        assert await resource.delete() == 200
        assert await resource.delete() == 404


async def test_a_socket_resumes_through_the_other_server(shared: Pair, http, scene: Scene) -> None:
    http.headers.update(since("198.51.100.3"))
    async with Peer(scene) as peer:
        async with await Signal.open(http, shared.a.ws, peer) as first:
            await first.expect("welcome")
            session = (await first.negotiate(await peer.offer(), options={"budget_ms": 1600}))["session_id"]
            await peer.results.more(2, "results")
        async with await Signal.open(http, shared.b.ws, peer) as socket:
            await socket.expect("welcome")
            sdp = await peer.offer()
            answer = await socket.negotiate(sdp, session_id=session)
            assert (answer["session_id"], answer["options"]["budget_ms"]) == (session, 1600)
            await socket.send("configure", options={"budget_ms": 1700})
            assert (await socket.expect("configured"))["options"]["budget_ms"] == 1700
            await peer.results.until(lambda it: it[-1]["budget_ms"] == 1700, "results with the new budget")
            await socket.send("configure", options={"model": "none"})
            await socket.error("unknown_model", fatal=False)
            async with http.get(f"{shared.b.url}/v1/sessions") as answer:
                assert await answer.json() == [], "it is still the other server's session"
            await socket.send("bye")
            assert (await socket.expect("closed"))["reason"] == "bye"
            assert await socket.closed() == 1000
        await shared.redis.until(session, None)
        # Of a session that is over, the next socket hears what it would hear anywhere.
        async with await Signal.open(http, shared.b.ws, peer) as socket:
            await socket.expect("welcome")
            await socket.send("offer", sdp=sdp, session_id=session)
            await socket.error("not_found", fatal=False)


def proof(request: dict[str, str], secret: str = SECRET, **said: object) -> dict[str, str]:
    """The header that a server writes, made by another program than the server's."""
    told = {"from": "b", "to": "a", "time": round(time.time() * 1000), "nonce": os.urandom(16).hex(), "client": "198.51.100.9"}
    told |= said
    body = hashlib.sha256(b"").hexdigest()
    lines = ["saccade-forwarded 1", *map(str, told.values()), request["method"], request["target"], request["host"], "", body]
    text = "".join(f"{line}\n" for line in lines)
    told["mac"] = hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()
    return {"host": request["host"], "saccade-forwarded": ";".join(f"{name}={value}" for name, value in told.items())}


def entry(session: str, name: str, url: str, secret: str = SECRET) -> str:
    """What a server writes of a session of its own, made by another program than the server."""
    text = "".join(f"{line}\n" for line in ("saccade-owner 1", f"saccade:session:{session}", name, url))
    return json.dumps({"name": name, "url": url, "seal": hmac.new(secret.encode(), text.encode(), "sha256").hexdigest()})


async def test_what_no_server_forwards_is_refused(shared: Pair, http, scene: Scene) -> None:
    http.headers.update(since("198.51.100.4"))
    async with Peer(scene) as peer:
        session = await connect(http, shared.a.url, peer)
        request = {"method": "GET", "target": f"/v1/sessions/{session}", "host": "vision.example"}
        url = f"{shared.peers('a')}{request['target']}"
        good = proof(request)
        assert await status(http, url, headers=good) == (200, None)
        second = round(time.time() * 1000)
        for headers, reason in [
            (good, "replayed"),
            ({}, "missing"),
            ({"saccade-forwarded": "from=b"}, "missing"),
            (proof(request, secret="another secret of thirty-two bytes"), "forged"),
            (proof(request | {"target": "/v1/sessions/else"}), "forged"),
            (proof(request | {"method": "DELETE"}), "forged"),
            (proof(request) | {"authorization": "Bearer stolen"}, "forged"),
            (proof(request, to="c"), "misdirected"),
            (proof(request, time=second - 60_000), "late"),
            (proof(request, time=second + 60_000), "late"),
        ]:
            async with http.get(url, headers=headers) as answer:
                problem = await answer.json(content_type=None)
                assert (answer.status, problem["code"], answer.headers["saccade-refused"]) == (403, "forbidden", reason)
                assert "session_id" not in problem
        # The listener has nothing but sessions, and a client cannot bring a proof to the public one.
        for path in ("/v1/sessions", "/v1/models", "/", "/metrics", "/v2"):
            assert await status(http, f"{shared.peers('a')}{path}") == (404, "not_found")
        assert await status(http, f"{shared.b.url}{request['target']}", headers=proof(request)) == (421, "forbidden")

        # What was forwarded once goes no further, whatever the registry says.
        shared.redis.tell("circle", entry("circle", "b", shared.peers("b")))
        accepted = 'saccade_cluster_received_total{outcome="accepted"}'
        before = await metric(http, shared.b, accepted)
        circle = {"method": "GET", "target": "/v1/sessions/circle", "host": "vision.example"}
        assert await status(http, f"{shared.peers('a')}/v1/sessions/circle", headers=proof(circle)) == (404, "not_found")
        assert await metric(http, shared.b, accepted) == before
        # From a client it goes there, and ends there.
        assert await status(http, f"{shared.a.url}/v1/sessions/circle") == (404, "not_found")
        assert await metric(http, shared.b, accepted) == before + 1
        assert await status(http, f"{shared.a.url}/v1/sessions/{session}", "DELETE") == (200, None)


class Owner:
    """Something that takes what is forwarded, and says what a test has it say."""

    def __init__(self, *frames: bytes) -> None:
        self.frames, self.heads = frames, []

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
        key = next(line.split(": ", 1)[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
        words = [
            "HTTP/1.1 101 Switching Protocols",
            "Connection: Upgrade",
            "Upgrade: websocket",
            f"Sec-WebSocket-Accept: {accept}",
            f"Sec-WebSocket-Protocol: {fields['sec-websocket-protocol']}",
        ]
        writer.write("".join(f"{word}\r\n" for word in [*words, ""]).encode())
        # The offer.
        await reader.read(1)
        for frame in self.frames:
            writer.write(frame)
        await reader.read()
        writer.close()


def said(kind: str, **fields: object) -> bytes:
    """A message in a frame as a server sends it."""
    text = json.dumps({"type": kind} | fields).encode()
    return b"\x81\x7e" + len(text).to_bytes(2, "big") + text


def closing(*code: int) -> bytes:
    body = b"".join(it.to_bytes(2, "big") for it in code)
    return b"\x88" + bytes([len(body)]) + body


async def test_entries_that_no_server_wrote_lead_nowhere(shared: Pair, http) -> None:
    http.headers.update(since("198.51.100.5"))
    thief = Owner()
    async with thief.listen() as url:
        forged = 'saccade_cluster_registry_total{operation="find",outcome="forged"}'
        before = await metric(http, shared.b, forged)
        bad = [
            json.dumps({"name": "a", "url": url}),
            entry("planted", "a", url, secret="another secret of thirty-two bytes"),
            entry("another", "a", url),
            entry("planted", "a", shared.peers("a")).replace(shared.peers("a"), url),
            "x" * 5000,
        ]
        for number, it in enumerate(bad, 1):
            shared.redis.tell("planted", it)
            secret = {"Authorization": "Bearer to be stolen"}
            assert await status(http, f"{shared.b.url}/v1/sessions/planted", headers=secret) == (503, "internal")
            assert await metric(http, shared.b, forged) >= before + number
        async with await Signal.open(http, shared.b.ws) as socket:
            await socket.expect("welcome")
            await socket.send("offer", sdp="v=0", session_id="planted")
            await socket.error("not_found", fatal=False)
        assert thief.heads == []


async def test_an_owner_closes_a_socket_with_its_own_words(shared: Pair, http, scene: Scene) -> None:
    http.headers.update(since("198.51.100.6"))
    lost = 'saccade_cluster_forwarded_total{kind="socket",outcome="lost"}'
    before = await metric(http, shared.b, lost)
    async with Peer(scene) as peer:
        async with await Signal.open(http, shared.a.ws, peer) as first:
            await first.expect("welcome")
            answer = await first.negotiate(await peer.offer())
            await first.send("bye")
            await first.expect("closed")

    @asynccontextmanager
    async def resumed(session: str, *frames: bytes) -> AsyncIterator[Signal]:
        async with Owner(*frames).listen() as url:
            shared.redis.tell(session, entry(session, "a", url))
            async with await Signal.open(http, shared.b.ws) as socket:
                await socket.expect("welcome")
                await socket.send("offer", sdp="v=0", session_id=session)
                yield socket

    told = said(**({"kind": "answer"} | {name: it for name, it in answer.items() if name != "type"}))
    async with resumed("with.code", told, closing(4429)) as socket:
        await socket.expect("answer")
        assert await socket.closed() == 4429
    async with Owner(told, closing()).listen() as url, http.ws_connect(shared.b.ws, protocols=(SUBPROTOCOL,)) as socket:
        shared.redis.tell("without", entry("without", "a", url))
        await socket.send_json({"type": "offer", "sdp": "v=0", "session_id": "without"})
        assert [(await socket.receive_json())["type"] for _ in range(2)] == ["welcome", "answer"]
        async with asyncio.timeout(LIMIT):
            last = await socket.receive()
        # Closed without a code, and not broken off.
        assert (last.type, last.data) == (aiohttp.WSMsgType.CLOSE, 0)
    ends = said("error", code="unauthorized", message="The token has ended.", fatal=True)
    async with resumed("ends", ends, closing(4401)) as socket:
        await socket.error("unauthorized", fatal=True)
        assert await socket.closed() == 4401
    assert await metric(http, shared.b, lost) == before


async def test_clients_of_a_server_that_hangs_are_with_another_within_ten_seconds(http, scene: Scene) -> None:
    # Its entries do not end in time.
    pair = Pair(cluster__lease_ms=30_000)
    try:
        async with Peer(scene) as peer, Peer(scene, "VP8") as again:
            session = await connect(http, pair.a.url, peer)
            await peer.results.more(2, "results")
            async with await Signal.open(http, pair.b.ws, peer) as between:
                await between.expect("welcome")
                await between.negotiate(await peer.offer(), session_id=session)
                # An owner that has nothing to say is there all the same: longer than it may take to notice one that hangs.
                quiet = time.monotonic()
                while time.monotonic() < quiet + 8:
                    await peer.results.more(1, "results while nothing is said")
                await between.send("configure", options={"budget_ms": 1700})
                await between.expect("configured")
                # Nobody closes its connections, and the system takes new ones for it.
                pair.a.process.send_signal(signal.SIGSTOP)
                hung = time.monotonic()
                assert await between.closed() in (None, 1006)
            async with await Signal.open(http, pair.b.ws, again) as socket:
                await socket.expect("welcome")
                sdp = await again.offer()
                await socket.send("offer", sdp=sdp, session_id=session)
                await socket.error("not_found", fatal=False)
                took = time.monotonic() - hung
                assert took <= 10, f"it took {took:.1f} s"
                await socket.negotiate(sdp)
                await again.results.more(1, "results of the new session")
            assert await metric(http, pair.b, 'saccade_cluster_forwarded_total{kind="socket",outcome="lost"}') == 1
            assert await metric(http, pair.b, 'saccade_cluster_forwarded_total{kind="socket",outcome="silent"}') == 1
            pair.a.process.send_signal(signal.SIGCONT)
    finally:
        pair.a.process.send_signal(signal.SIGCONT)
        pair.stop()


async def test_a_registry_without_memory_is_still_asked(http, scene: Scene) -> None:
    pair = Pair(cluster__lease_ms=30_000)
    try:
        async with Peer(scene) as peer, Peer(scene, "VP8") as late:
            session = await connect(http, pair.a.url, peer)
            await pair.redis.until(session, "a")
            assert pair.redis.ask("CONFIG", "SET", "maxmemory", "1") == "OK"
            another = await connect(http, pair.a.url, late)
            refused = 'saccade_cluster_registry_total{operation="renew",outcome="refused"}'
            async with asyncio.timeout(LIMIT):
                while await metric(http, pair.a, refused) < 4:
                    await peer.results.more(1, "results while nothing can be written")
            for server in (pair.a, pair.b):
                assert await metric(http, server, "saccade_cluster_registry_breaker_open") == 0
            # What is known is found, and what is not is not there.
            assert await status(http, f"{pair.b.url}/v1/sessions/{session}") == (200, None)
            assert await status(http, f"{pair.a.url}/v1/sessions/none") == (404, "not_found")
            assert pair.redis.ask("CONFIG", "SET", "maxmemory", "0") == "OK"
            await pair.redis.until(another, "a")
            # One entry of another type is one session that cannot be asked for.
            pair.redis.ask("RPUSH", "saccade:session:wrong", "x")
            for _ in range(4):
                assert (await status(http, f"{pair.b.url}/v1/sessions/wrong"))[0] == 503
            assert await status(http, f"{pair.b.url}/v1/sessions/{another}") == (200, None)
    finally:
        pair.stop()


async def test_clients_of_a_server_that_died_are_with_another_within_ten_seconds(pair: Pair, http, scene: Scene) -> None:
    async with Peer(scene) as peer, Peer(scene, "VP8") as again:
        async with await Signal.open(http, pair.a.ws, peer) as first:
            await first.expect("welcome")
            session = (await first.negotiate(await peer.offer()))["session_id"]
            await peer.results.more(2, "results")
            # A socket that goes by the other server ends with the session's server, too.
            async with await Signal.open(http, pair.b.ws, peer) as between:
                await between.expect("welcome")
                await between.negotiate(await peer.offer(), session_id=session)
                assert pair.redis.owner(session) == "a"
                pair.a.process.kill()
                pair.a.process.wait()
                died = time.monotonic()
                assert await between.closed() in (None, 1006)
        # The lease is not over, and nobody waits for its end.
        assert await status(http, f"{pair.b.url}/v1/sessions/{session}") == (404, "not_found")
        assert await status(http, f"{pair.b.url}/v1/sessions/{session}", "DELETE") == (404, "not_found")
        async with await Signal.open(http, pair.b.ws, again) as socket:
            await socket.expect("welcome")
            sdp = await again.offer()
            await socket.send("offer", sdp=sdp, session_id=session)
            await socket.error("not_found", fatal=False)
            answer = await socket.negotiate(sdp)
            assert answer["session_id"] != session
            await again.results.more(1, "results of the new session")
            took = time.monotonic() - died
            assert took <= 10, f"it took {took:.1f} s"
            await pair.redis.until(answer["session_id"], "b")
            await pair.redis.until(session, None, LEASE_MS / 1000 + 5)


async def test_sessions_go_on_without_the_registry_and_are_known_again_with_it(pair: Pair, http, scene: Scene) -> None:
    async with Peer(scene) as peer, Peer(scene, "VP8") as late:
        session = await connect(http, pair.a.url, peer)
        await peer.results.more(2, "results")
        await pair.redis.until(session, "a")
        pair.redis.kill()
        async with http.get(f"{pair.b.url}/v1/sessions/{session}") as answer:
            assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
        # Its own server needs no registry, neither for it nor for others.
        assert await status(http, f"{pair.a.url}/v1/sessions/{session}") == (200, None)
        another = await connect(http, pair.a.url, late)
        await late.results.more(2, "results of a session that began meanwhile")
        missed = "saccade_cluster_renewals_missed_total"
        async with asyncio.timeout(LIMIT):
            while not await metric(http, pair.a, missed):
                await peer.results.more(1, "results without the registry")

        pair.redis.start()
        for it in (session, another):
            await pair.redis.until(it, "a")
        async with asyncio.timeout(LIMIT):
            while await status(http, f"{pair.b.url}/v1/sessions/{session}") != (200, None):
                await peer.results.more(1, "results while the other server comes to know")
        assert await status(http, f"{pair.b.url}/v1/sessions/{another}", "DELETE") == (200, None)
        await pair.redis.until(another, None)
        await peer.results.more(2, "results afterwards")
        # A lease that is renewed does not end.
        renewed = 'saccade_cluster_registry_total{operation="renew",outcome="ok"}'
        before = await metric(http, pair.a, renewed)
        async with asyncio.timeout(LIMIT):
            while await metric(http, pair.a, renewed) < before + 4:
                await peer.results.more(1, "results for longer than a lease")
        assert pair.redis.owner(session) == "a"


async def test_tokens_are_checked_by_the_owner_and_go_with_a_socket(http, scene: Scene) -> None:
    def token(*words: str) -> str:
        done = command("token", *words, SACCADE_AUTH__SECRET=TOKENS)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    pair = Pair(auth__secret=TOKENS)
    try:
        own = token("--can-publish", "--can-view", "--sub", "ann")
        other = token("--can-publish", "--can-view", "--sub", "bob")
        async with Peer(scene) as peer:
            session = await connect(http, pair.a.url, peer, headers={"Authorization": f"Bearer {own}"})
            await peer.results.more(2, "results")
            url = f"{pair.b.url}/v1/sessions/{session}"
            before = await metric(http, pair.a, 'saccade_cluster_received_total{outcome="accepted"}')
            assert await status(http, url) == (401, "unauthorized")
            assert await status(http, f"{url}/results?access_token=none") == (401, "unauthorized")
            assert await metric(http, pair.a, 'saccade_cluster_received_total{outcome="accepted"}') == before
            assert await status(http, url, "DELETE", headers={"Authorization": f"Bearer {other}"}) == (403, "forbidden")
            for bearer, is_owner in ((other, False), (own, True)):
                async with await Signal.open(http, pair.b.ws, peer) as socket:
                    # The token comes in a message, as browsers send it.
                    await socket.send("auth", token=bearer)
                    await socket.expect("welcome")
                    if is_owner:
                        answer = await socket.negotiate(await peer.offer(), session_id=session)
                        assert answer["session_id"] == session
                        await peer.results.more(2, "results after the resume")
                    else:
                        await socket.send("offer", sdp=await peer.offer(), session_id=session)
                        await socket.error("not_found", fatal=False)
            assert await status(http, url, "DELETE", headers={"Authorization": f"Bearer {own}"}) == (200, None)
    finally:
        pair.stop()
