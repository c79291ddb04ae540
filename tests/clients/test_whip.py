"""WHIP with a client of its own on the other side."""

from collections.abc import Iterator

import aiohttp
import pytest
from peer import Peer, without_candidates
from scene import Scene
from server import SHOP, Server
from whip import FRAGMENT, SDP, post


@pytest.fixture(scope="module")
def linked() -> Iterator[Server]:
    """A server that tells of ICE servers and of its public name."""
    server = Server(
        ice_servers='[{"urls":["stun:127.0.0.1:9","turn:127.0.0.1:9"],"username":"me","credential":"secret"}]',
        http__public_url="http://localhost:1",
        shutdown__grace_ms=500,
    )
    yield server
    server.stop()


async def test_a_session_is_published_and_deleted(server: Server, http, scene: Scene, witness: Peer) -> None:
    async with Peer(scene) as peer:
        resource = await post(http, f"{server.url}/v1/whip?return=exact&budget_ms=1900", await peer.offer())
        assert resource.url.startswith(f"{server.url}/v1/sessions/")
        assert len(resource.answer) < 8192
        await peer.answer(resource.answer)
        results = await peer.results.more(5, "results")
        assert {it["session_id"] for it in results} == {resource.url.rsplit("/", 1)[1]}
        assert {it["budget_ms"] for it in results} == {1900}
        await peer.pictures.more(5, "pictures")
        async with http.get(resource.url) as view:
            assert (await view.json())["state"] == "connected"
        assert await resource.delete() == 200
        assert await resource.delete() == 404
    await witness.results.more(3, "results of another session")


async def test_candidates_are_trickled(server: Server, http, scene: Scene) -> None:
    async with Peer(scene, "VP8") as peer:
        resource = await post(http, f"{server.url}/v1/whip?return=results", without_candidates(await peer.offer()))
        await resource.trickle(peer.pc, [it["candidate"] for it in peer.trickled()])
        # aiortc only answers to checks that it can pair: nothing comes before this.
        await peer.answer(resource.answer)
        await peer.results.more(3, "results")
        status, _, _ = await resource.patch("a=end-of-candidates\r\n", tag='"another"')
        assert status == 412
        assert await resource.delete() == 200


async def test_ice_is_restarted_on_paper(server: Server, http, scene: Scene) -> None:
    """aiortc cannot restart ICE itself: the server must take the restart, and end the session when nothing comes."""
    async with Peer(scene) as peer:
        resource = await post(http, f"{server.url}/v1/whip?return=results", await peer.offer())
        await peer.answer(resource.answer)
        await peer.results.more(2, "results")
        fragment = "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n"
        status, headers, body = await resource.patch(fragment, tag="*")
        assert (status, headers["Content-Type"]) == (200, FRAGMENT["Content-Type"])
        assert headers["ETag"] != resource.tag
        lines = body.splitlines()
        assert f'a=ice-ufrag:{headers["ETag"].strip(chr(34))}' in lines
        for name in ("a=ice-pwd:", "a=candidate:", "a=mid:0"):
            assert any(it.startswith(name) for it in lines), body
        # The old ICE session is over.
        assert (await resource.patch("a=end-of-candidates\r\n"))[0] == 412
        resource.tag = headers["ETag"]
        assert (await resource.patch("a=end-of-candidates\r\n"))[0] == 204
        assert await resource.delete() == 200


async def test_refusals_have_their_status(server: Server, http, scene: Scene) -> None:
    async with Peer(scene) as peer:
        sdp = await peer.offer()
        url = f"{server.url}/v1/whip"
        cases = [
            (url, sdp, {"Content-Type": "text/plain"}, 415, "unsupported_type"),
            (url, sdp, SDP | {"Accept": "application/json"}, 406, "unsupported_type"),
            (url, "v=0", SDP, 400, "bad_sdp"),
            (url, "x" * 70_000, SDP, 413, "too_large"),
            (url, sdp.replace("H264", "H999").replace("VP8", "VP0"), SDP, 422, "no_common_codec"),
            (f"{url}?colour=red", sdp, SDP, 422, "bad_options"),
            (f"{url}?model=none", sdp, SDP, 422, "unknown_model"),
        ]
        for where, body, headers, status, code in cases:
            async with http.post(where, data=body, headers=headers, allow_redirects=False) as answer:
                problem = await answer.json(content_type="application/problem+json")
                assert (answer.status, problem["code"]) == (status, code), problem

        resource = await post(http, url, sdp)
        async with http.patch(resource.url, data="x", headers=SDP) as answer:
            assert answer.status == 415
        async with http.patch(resource.url, data="x", headers=FRAGMENT) as answer:
            assert answer.status == 428
        for fragment, tag, status in [
            ("nonsense", '"other"', 412),
            ("nonsense", resource.tag, 400),
            ("a=ice-ufrag:abcd\r\n", "*", 422),
        ]:
            assert (await resource.patch(fragment, tag=tag))[0] == status, fragment
        assert await resource.delete() == 200
        async with http.patch(resource.url, data="x", headers=SDP) as answer:
            assert answer.status == 404


async def test_ice_servers_and_the_public_name_are_told(linked: Server, http, scene: Scene) -> None:
    async with Peer(scene) as peer:
        async with http.post(f"{linked.url}/v1/whip", data=await peer.offer(), headers=SDP) as answer:
            assert answer.status == 201, await answer.text()
            assert answer.headers["Location"].startswith("http://localhost:1/v1/sessions/")
            secret = '; rel="ice-server"; username="me"; credential="secret"; credential-type="password"'
            assert answer.headers.getall("Link") == [f"<{it}:127.0.0.1:9>{secret}" for it in ("stun", "turn")]


async def test_a_foreign_page_may_ask_and_read(server: Server, http) -> None:
    asked = {"Origin": SHOP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with http.options(f"{server.url}/v1/whip", headers=asked) as answer:
        assert answer.status in (200, 204)
        assert answer.headers["Accept-Post"] == "application/sdp"
        assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    refused = {"Origin": SHOP, "Content-Type": "text/plain"}
    async with http.post(f"{server.url}/v1/whip", data="x", headers=refused) as answer:
        exposed = {it.strip().lower() for it in answer.headers["Access-Control-Expose-Headers"].split(",")}
        assert {"location", "etag", "link", "retry-after"} <= exposed


async def test_a_full_server_says_when_to_publish_again(http: aiohttp.ClientSession, scene: Scene) -> None:
    server = Server(admission__mode="fixed", admission__max_sessions=1, shutdown__grace_ms=500)
    try:
        async with Peer(scene) as peer:
            sdp = await peer.offer()
            resource = await post(http, f"{server.url}/v1/whip", sdp)
            async with http.post(f"{server.url}/v1/whip", data=sdp, headers=SDP) as answer:
                assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
            assert await resource.delete() == 200
    finally:
        server.stop()
