"""Two servers that share a registry of sessions: what is asked of one about the other's sessions, and what happens when a
server or the registry goes away."""

import asyncio
import hashlib
import hmac
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from feed import LIMIT
from peer import Peer, Signal, connect
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
        return Server(
            cluster__redis_url=self.redis.url,
            cluster__name=name,
            cluster__listen=f"127.0.0.1:{self.ports[name]}",
            cluster__advertise=f"http://127.0.0.1:{self.ports[name]}",
            cluster__secret=SECRET,
            cluster__lease_ms=LEASE_MS,
            shutdown__grace_ms=500,
            **settings,
        )

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
        entry = json.dumps({"name": "b", "url": shared.peers("b")})
        assert shared.redis.ask("SET", "saccade:session:circle", entry, "EX", "30") == "OK"
        accepted = 'saccade_cluster_received_total{outcome="accepted"}'
        before = await metric(http, shared.b, accepted)
        circle = {"method": "GET", "target": "/v1/sessions/circle", "host": "vision.example"}
        assert await status(http, f"{shared.peers('a')}/v1/sessions/circle", headers=proof(circle)) == (404, "not_found")
        assert await metric(http, shared.b, accepted) == before
        # From a client it goes there, and ends there.
        assert await status(http, f"{shared.a.url}/v1/sessions/circle") == (404, "not_found")
        assert await metric(http, shared.b, accepted) == before + 1
        assert await status(http, f"{shared.a.url}/v1/sessions/{session}", "DELETE") == (200, None)


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
