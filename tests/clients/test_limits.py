"""What a server does when it is full, and with clients that never come, go silent or send too much."""

from collections.abc import Iterator

import aiohttp
import pytest
from aiortc.mediastreams import AudioStreamTrack
from aiortc.sdp import SessionDescription
from peer import Peer, Signal, connect, post_offer, without_candidates
from scene import Scene
from server import Server


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """A server for one session at a time, with little patience."""
    server = Server(
        admission__mode="fixed",
        admission__max_sessions=1,
        session__ice_timeout_ms=1000,
        session__idle_timeout_ms=1000,
        session__resume_ms=1000,
        shutdown__grace_ms=500,
    )
    yield server
    server.stop()


async def test_a_full_server_says_when_to_come_again(http: aiohttp.ClientSession, small: Server, scene: Scene) -> None:
    async with Peer(scene) as peer, Peer(scene) as late:
        session = await connect(http, small.url, peer, {"return": "results"})
        await peer.results.more(2, "results")
        sdp = await late.offer()
        async with http.post(f"{small.url}/v1/offer", json={"sdp": sdp, "type": "offer"}) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "capacity")
            assert int(answer.headers["retry-after"]) >= 1
        async with await Signal.open(http, small.ws) as signal:
            await signal.expect("welcome")
            await signal.send("offer", sdp=sdp)
            assert (await signal.error("capacity", fatal=True))["retry_after_ms"] >= 1
            assert await signal.closed() == 1013
        async with http.get(f"{small.ops}/metrics") as answer:
            assert 'saccade_admission_rejected_total{reason="capacity"} 2' in await answer.text()
        await peer.results.more(2, "results")
        async with http.delete(f"{small.url}/v1/sessions/{session}") as answer:
            assert answer.status == 200
        # Its place is free at once.
        session = await connect(http, small.url, late, {"return": "results"})
        await late.results.more(2, "results")
        async with http.delete(f"{small.url}/v1/sessions/{session}") as answer:
            assert answer.status == 200


async def test_a_client_that_no_path_leads_to_ends(http: aiohttp.ClientSession, small: Server, scene: Scene) -> None:
    async with Peer(scene) as peer, await Signal.open(http, small.ws) as signal:
        await signal.expect("welcome")
        await signal.send("offer", sdp=without_candidates(await peer.offer()))
        await signal.expect("answer")
        message = await signal.next()
        while message["type"] == "candidate":
            message = await signal.next()
        assert (message["type"], message["code"], message["fatal"]) == ("error", "ice_timeout", True), message
        assert "UDP" in message["message"]
        assert (await signal.expect("closed"))["reason"] == "ice_timeout"
        assert await signal.closed() == 1000


async def test_a_client_that_goes_silent_ends(http: aiohttp.ClientSession, small: Server, scene: Scene) -> None:
    async with Peer(scene) as peer, await Signal.open(http, small.ws, peer) as signal:
        await signal.expect("welcome")
        await signal.negotiate(await peer.offer(), options={"return": "results"})
        await peer.results.more(2, "results")
        peer.track.stop()
        assert (await signal.expect("closed"))["reason"] == "idle"
        assert await signal.closed() == 1000


async def test_a_session_without_a_socket_ends_unless_it_is_resumed(http, small: Server, scene: Scene) -> None:
    async with Peer(scene) as peer:
        async with await Signal.open(http, small.ws, peer) as signal:
            await signal.expect("welcome")
            sdp = await peer.offer()
            session = (await signal.negotiate(sdp, options={"return": "results"}))["session_id"]
            await peer.results.more(2, "results")
            watched = await http.get(f"{small.url}/v1/sessions/{session}/results")
        # Ends with the session.
        async with watched:
            async for _ in watched.content:
                pass
        async with await Signal.open(http, small.ws) as signal:
            await signal.expect("welcome")
            await signal.send("offer", sdp=sdp, session_id=session)
            await signal.error("not_found", fatal=False)


async def test_a_microphone_beside_the_camera_is_idle(http: aiohttp.ClientSession, small: Server, scene: Scene) -> None:
    async with Peer(scene) as peer:
        peer.pc.addTrack(AudioStreamTrack())
        session = await connect(http, small.url, peer, {"return": "exact"})
        sections = SessionDescription.parse(peer.pc.remoteDescription.sdp).media
        assert [(it.kind, it.direction) for it in sections[:2]] == [("video", "sendrecv"), ("audio", "inactive")]
        await peer.results.more(2, "results")
        await peer.pictures.more(2, "pictures")
        async with http.delete(f"{small.url}/v1/sessions/{session}") as deleted:
            assert deleted.status == 200


async def test_a_second_video_does_not_disturb(http: aiohttp.ClientSession, small: Server, scene: Scene) -> None:
    async with Peer(scene) as peer:
        peer.pc.addTransceiver("video", direction="recvonly")
        session = await connect(http, small.url, peer, {"return": "exact"})
        await peer.results.more(2, "results")
        await peer.pictures.more(2, "pictures")
        async with http.delete(f"{small.url}/v1/sessions/{session}") as deleted:
            assert deleted.status == 200
