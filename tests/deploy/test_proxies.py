"""nginx and HAProxy as deploy/ has them, in front of a real server: the page, sockets, streams, pictures, and who asks."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest
from peer import SUBPROTOCOL, Peer, Signal
from proxies import Front, Haproxy, Nginx
from scene import Scene
from server import Server, free_port

FRONTS = [pytest.param(it, id=it.name) for it in (Nginx, Haproxy)]


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


class Site:
    """A server and a proxy in front of it."""

    def __init__(self, kind: type[Front], change: Callable[[Front], None] = lambda _: None, **settings: object) -> None:
        port = free_port()
        settings = {"http__public_url": f"https://localhost:{port}", "http__trusted_proxies": "127.0.0.1"} | settings
        self.server = Server(**{"shutdown__grace_ms": 1000} | settings)
        try:
            self.front = kind(port, port_of(self.server.url), port_of(self.server.ops))
            change(self.front)
            self.front.__enter__()
        except BaseException:
            self.server.stop()
            raise

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_: object) -> None:
        self.front.__exit__()
        self.server.stop()

    def client(self, **more: object) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self.front.trusting, **more)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30))


@pytest.fixture(scope="module", params=FRONTS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with Site(request.param) as site:
        yield site


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture
async def http(site: Site) -> AsyncIterator[aiohttp.ClientSession]:
    async with site.client() as session:
        yield session


async def asked(server: Server) -> dict[str, int]:
    """How many requests the server itself has answered, by route."""
    async with aiohttp.ClientSession() as http, http.get(f"{server.ops}/metrics") as answer:
        text = await answer.text()
    found: dict[str, int] = {}
    for route, number in re.findall(r'saccade_http_requests_total\{[^}]*route="([^"]*)"[^}]*\} (\d+)', text):
        found[route] = found.get(route, 0) + int(number)
    return found


@pytest.mark.parametrize("kind", FRONTS)
def test_the_configuration_is_checked_by_the_program_itself(kind: type[Front]) -> None:
    front = kind(free_port(), 1, 2)
    try:
        done = front.check()
        assert done.returncode == 0, done.stdout + done.stderr
        said = done.stdout + done.stderr
        assert "[warn]" not in said and "WARNING" not in said.upper().replace("0 WARNING", ""), said
    finally:
        front.close()


async def test_the_page_comes_with_the_headers_of_server_and_proxy(site: Site, http: aiohttp.ClientSession) -> None:
    for path in ("/", "/v1/models", "/v1/nothing"):
        async with http.get(site.front.url + path) as answer:
            assert answer.status == (404 if path == "/v1/nothing" else 200), path
            headers = answer.headers
            for name in ("strict-transport-security", "content-security-policy", "x-content-type-options", "referrer-policy"):
                assert len(headers.getall(name, [])) == 1, (path, name, headers.getall(name, []))
            assert headers["strict-transport-security"] == "max-age=31536000"
    async with http.get(f"http://localhost:{site.front.plain}/stills.html?a=b", allow_redirects=False) as answer:
        assert answer.status == 308
        assert re.fullmatch(r"https://localhost(:\d+)?/stills\.html\?a=b", answer.headers["location"])


def test_clients_may_speak_http_2_and_no_old_tls(site: Site) -> None:
    words = ["curl", "--silent", "--show-error", "--max-time", "20", "--cacert", str(site.front.folder / "cert.pem")]
    tell = ["--output", "/dev/null", "--write-out", "%{http_version} %{http_code}"]
    done = subprocess.run([*words, "--http2", *tell, f"{site.front.url}/"], capture_output=True, text=True, timeout=30)
    assert done.stdout == "2 200", done.stderr
    old = [*words, "--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0", *tell, f"{site.front.url}/"]
    assert subprocess.run(old, capture_output=True, timeout=30).returncode == 35


async def test_files_of_the_page_are_cached_and_answers_of_the_api_are_not(site: Site, http: aiohttp.ClientSession) -> None:
    async def get(path: str, **headers: str) -> aiohttp.ClientResponse:
        async with http.get(site.front.url + path, headers=headers) as answer:
            await answer.read()
            return answer

    first = await get("/saccade.js")
    before = await asked(site.server)
    for _ in range(5):
        again = await get("/saccade.js")
        assert (again.status, again.headers["etag"]) == (200, first.headers["etag"])
        # Clients go on asking each time, so that all of them have a new version at once.
        assert again.headers["cache-control"] == "no-cache"
    known = await get("/saccade.js", **{"if-none-match": first.headers["etag"]})
    assert known.status == 304
    assert await asked(site.server) == before
    for _ in range(3):
        assert (await get("/v1/models")).status == 200
    after = await asked(site.server)
    assert after["/v1/models"] == before.get("/v1/models", 0) + 3


async def test_a_session_over_the_socket_gets_results_and_a_stream_of_them(
    site: Site, http: aiohttp.ClientSession, scene: Scene
) -> None:
    async with Peer(scene, "VP8") as peer, await Signal.open(http, site.front.ws, peer, origin=site.front.url) as signal:
        await signal.expect("welcome")
        await signal.negotiate(await peer.offer())
        await peer.results.more(3, "results")
        await peer.pictures.more(2, "pictures")
        # Each event comes when it happens: nothing waits for a buffer to be full.
        async with http.get(f"{site.front.url}/v1/sessions/{signal.session_id}/results") as stream:
            assert (stream.status, stream.content_type) == (200, "text/event-stream")
            async with asyncio.timeout(20):
                events = [line async for line in _data(stream, 3)]
        assert [it["session_id"] for it in events] == [signal.session_id] * 3
        # The same over the data channel goes on beside it.
        await peer.results.until(lambda it: it[-1]["frame_id"] >= events[-1]["frame_id"], "results after those of the stream")
        await signal.send("bye")
        assert (await signal.expect("closed"))["reason"] == "bye"
        assert await signal.closed() == 1000


async def _data(stream: aiohttp.ClientResponse, count: int) -> AsyncIterator[dict]:
    async for line in stream.content:
        if line.startswith(b"data:"):
            yield json.loads(line[5:])
            count -= 1
            if count == 0:
                return


async def test_resources_are_called_as_clients_reach_them(site: Site, http: aiohttp.ClientSession, scene: Scene) -> None:
    async with Peer(scene, "VP8") as peer:
        sdp = {"content-type": "application/sdp"}
        async with http.post(f"{site.front.url}/v1/whip?return=results", data=await peer.offer(), headers=sdp) as answer:
            assert answer.status == 201, await answer.text()
            location = answer.headers["location"]
            await peer.answer(await answer.text())
        assert location.startswith(f"{site.front.url}/v1/sessions/")
        await peer.results.more(2, "results")
        async with http.delete(location) as answer:
            assert answer.status == 200


async def test_a_picture_of_ten_megabytes_goes_through_and_one_too_large_is_refused_by_the_server(
    site: Site, http: aiohttp.ClientSession
) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (1_900, 1_850, 3), dtype=np.uint8)
    picture = cv2.imencode(".png", noise)[1].tobytes()
    assert 10_000_000 < len(picture) < 16 * 2**20
    kind = {"content-type": "image/png"}
    async with http.post(f"{site.front.url}/v1/detect", data=picture, headers=kind) as answer:
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["width"] == 1_850
    async with http.post(f"{site.front.url}/v1/detect", data=bytes(17 * 2**20), headers=kind) as answer:
        assert answer.status == 413
        assert (await answer.json(content_type=None))["code"] == "too_large"
    # nginx says so where it writes a body to the disk.
    assert "temporary file" not in site.front.complaints()


async def test_the_log_has_paths_and_no_queries(site: Site, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{site.front.url}/v1/sessions?access_token=not-for-the-log") as answer:
        await answer.read()
    # A line is written when its answer is through.
    async with http.get(f"{site.front.url}/v1/cameras") as answer:
        await answer.read()
    # Nor of those who come without TLS, and are sent on.
    async with http.get(f"http://localhost:{site.front.plain}/v1/models?access_token=not-for-the-log", allow_redirects=False) as answer:
        await answer.read()
    for path in ("/v1/sessions", "/v1/models"):
        logged = site.front.logged(path)
        assert "not-for-the-log" not in logged and "access_token" not in logged


@pytest.mark.parametrize("kind", FRONTS)
async def test_quiet_streams_and_sockets_outlast_the_time_that_requests_have(kind: type[Front], scene: Scene) -> None:
    """Requests have two seconds here. The server says nothing for fifteen, then that it is still there."""
    with Site(kind, lambda front: front.hasten()) as site:
        async with site.client() as http, Peer(scene, "VP8") as peer:
            async with await Signal.open(http, site.front.ws, peer, origin=site.front.url) as signal:
                await signal.expect("welcome")
                await signal.negotiate(await peer.offer(), options={"return": "results"})
                await peer.results.more(1, "results")
                async with http.get(f"{site.front.url}/v1/sessions/{signal.session_id}/events") as stream:
                    assert stream.status == 200
                    async with asyncio.timeout(25):
                        quiet = [line async for line in _comments(stream)]
                    assert quiet
                # The socket has had nothing to say either, and is there.
                await signal.send("bye")
                assert (await signal.expect("closed"))["reason"] == "bye"


async def _comments(stream: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The first comment of a stream, which says that it lives."""
    async for line in stream.content:
        if line.startswith(b":"):
            yield line
            return


def connections(port: int) -> int:
    """Connections to a port of this machine that both ends have not closed yet."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # 06 waits for nothing but stray packets, 0A listens.
    return sum(int(it[1].split(":")[1], 16) == port and it[3] not in ("06", "0A") for it in lines)


@pytest.mark.parametrize("kind", FRONTS)
async def test_sockets_go_to_the_server_with_the_fewest(kind: type[Front]) -> None:
    other = Server(shutdown__grace_ms=1000, http__trusted_proxies="127.0.0.1")
    try:
        with Site(kind, lambda front: front.share(port_of(other.url), port_of(other.ops))) as site:
            both = [site.server, other]

            async def opened(http: aiohttp.ClientSession) -> tuple[Server, aiohttp.ClientWebSocketResponse]:
                """A socket, and which of both has it."""
                before = [(await asked(it)).get("/v1/signal", 0) for it in both]
                # Of no page: the second server's name is another.
                socket = await http.ws_connect(site.front.ws, protocols=(SUBPROTOCOL,))
                async with asyncio.timeout(10):
                    while True:
                        after = [(await asked(it)).get("/v1/signal", 0) for it in both]
                        if grown := [it for it, one, now in zip(both, before, after, strict=True) if now > one]:
                            return grown[0], socket

            async with site.client(force_close=True) as http:
                first = [await opened(http) for _ in range(4)]
                assert sorted(both.index(it) for it, _ in first) == [0, 0, 1, 1]
                # When those of one have gone, the next ones make up for them: in turns, each would get one.
                for server, socket in first:
                    if server is other:
                        await socket.close()
                async with asyncio.timeout(10):
                    while connections(port_of(other.url)):
                        await asyncio.sleep(0.02)
                then = [await opened(http) for _ in range(2)]
                assert [it for it, _ in then] == [other, other]
                for _, socket in (*first, *then):
                    await socket.close()
    finally:
        other.stop()


@pytest.mark.parametrize("kind", FRONTS)
async def test_the_server_counts_clients_and_not_what_they_say(kind: type[Front]) -> None:
    rate = {"rate__loopback": "true", "rate__requests_per_s": 1, "rate__request_burst": 3}
    with Site(kind, **rate) as site:

        async def statuses(address: str) -> list[int]:
            found = []
            async with site.client(local_addr=(address, 0)) as http:
                for number in range(5):
                    other = {"x-forwarded-for": f"198.51.100.{number}", "forwarded": f"for=198.51.100.{number}"}
                    async with http.get(f"{site.front.url}/v1/models", headers=other) as answer:
                        found.append(answer.status)
            return found

        # Each has its own rate, and no invention lifts it.
        assert await statuses("127.0.0.2") == [200, 200, 200, 429, 429]
        assert await statuses("127.0.0.3") == [200, 200, 200, 429, 429]


@pytest.mark.parametrize("kind", FRONTS)
async def test_while_the_server_drains_its_sessions_are_reached_and_new_ones_are_told_when_to_come(
    kind: type[Front], scene: Scene
) -> None:
    with Site(kind, shutdown__grace_ms=8000) as site:
        async with site.client() as http, Peer(scene, "VP8") as peer, Peer(scene, "VP8") as late:
            sdp = {"content-type": "application/sdp"}
            async with http.post(f"{site.front.url}/v1/whip?return=results", data=await peer.offer(), headers=sdp) as answer:
                assert answer.status == 201, await answer.text()
                location = answer.headers["location"]
                await peer.answer(await answer.text())
            await peer.results.more(1, "results")
            site.server.terminate()
            # The session hears of it first.
            await peer.results.more(2, "results while the server drains")
            async with http.post(f"{site.front.url}/v1/whip", data=await late.offer(), headers=sdp) as answer:
                assert answer.status == 503
                assert int(answer.headers["retry-after"]) >= 1
                assert (await answer.json(content_type=None))["code"] == "draining"
            async with http.delete(location) as answer:
                assert answer.status == 200
        assert site.server.wait(15)[0] == 0


async def test_an_upgrade_ends_no_session_and_refuses_none(scene: Scene) -> None:
    """The steps of deploy/README.md: the new server beside the old one, nginx told of it, the old one drained."""
    with Site(Nginx, shutdown__grace_ms=20_000) as site:
        new = Server(http__public_url=site.front.url, http__trusted_proxies="127.0.0.1", shutdown__grace_ms=1000)
        try:
            async with site.client() as http, Peer(scene, "VP8") as peer, Peer(scene, "VP8") as next_one:
                signal = await Signal.open(http, site.front.ws, peer, origin=site.front.url)
                async with signal:
                    await signal.expect("welcome")
                    await signal.negotiate(await peer.offer(), options={"return": "results"})
                    await peer.results.more(1, "results")
                    site.front.pass_to(port_of(new.url))
                    site.front.reload()
                    # Its workers change over by themselves: the new one is there when the new server is asked.
                    async with asyncio.timeout(20):
                        while "/v1/models" not in await asked(new):
                            async with site.client() as fresh, fresh.get(f"{site.front.url}/v1/models") as answer:
                                assert answer.status == 200
                    # The old socket and its session go on, and are told.
                    await peer.results.more(2, "results after the proxy changed over")
                    site.server.terminate()
                    assert (await signal.expect("draining"))["reconnect_after_ms"] > 0
                    await peer.results.more(2, "results while the server drains")
                    # As the client does then: a new session, for which there is a server at once.
                    async with site.client() as fresh, await Signal.open(fresh, site.front.ws, next_one) as again:
                        await again.expect("welcome")
                        await again.negotiate(await next_one.offer(), options={"return": "results"})
                        await next_one.results.more(2, "results of the new server")
                        await signal.send("bye")
                        assert (await signal.expect("closed"))["reason"]
                        assert site.server.wait(20)[0] == 0
                        await next_one.results.more(1, "results when the old server has gone")
        finally:
            new.stop()
