"""Viewers of a session's video, by WHEP, while its publisher runs."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from feed import LIMIT, Feed
from peer import Peer, connect, without_candidates
from scene import Scene
from server import Server
from whip import SDP, Resource, post

VIEWER = Path(__file__).with_name("viewer.py")


class Viewer:
    """One aiortc connection that takes video and sends none."""

    def __init__(self, codec: str = "H264") -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.transceiver = self.pc.addTransceiver("video", direction="recvonly")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        self.transceiver.setCodecPreferences([it for it in codecs if it.mimeType == f"video/{codec}"])
        self.pictures = Feed()
        self.tasks: list[asyncio.Task] = []
        self.resource: Resource | None = None
        self.pc.on("track", lambda track: self.tasks.append(asyncio.ensure_future(self.watch(track))))

    async def watch(self, track) -> None:
        try:
            while True:
                self.pictures.add((await track.recv()).to_ndarray(format="yuv420p"))
        except MediaStreamError:
            pass

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def join(self, http: aiohttp.ClientSession, server: Server, session: str, trickle: bool = False, **headers: str) -> None:
        sdp = await self.offer()
        sent = without_candidates(sdp) if trickle else sdp
        self.resource = await post(http, f"{server.url}/v1/whep/{session}", sent, **headers)
        assert self.resource.url.startswith(f"{server.url}/v1/sessions/{session}/viewers/")
        assert "a=sendonly" in self.resource.answer
        if trickle:
            lines = [it[2:] for it in sdp.splitlines() if it.startswith("a=candidate:")]
            await self.resource.trickle(self.pc, lines)
        await self.pc.setRemoteDescription(RTCSessionDescription(self.resource.answer, "answer"))

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await self.pc.close()


@asynccontextmanager
async def viewers(count: int, codec: str = "H264") -> AsyncIterator[list[Viewer]]:
    them = [Viewer(codec) for _ in range(count)]
    try:
        yield them
    finally:
        for it in them:
            await it.close()


async def metric(http: aiohttp.ClientSession, server: Server, name: str) -> float:
    """A metric's value; 0 where there is none yet."""
    async with http.get(f"{server.ops}/metrics") as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", await answer.text(), re.MULTILINE)
        return float(found[1]) if found else 0.0


async def view(http: aiohttp.ClientSession, server: Server, session: str) -> dict:
    async with http.get(f"{server.url}/v1/sessions/{session}") as answer:
        return await answer.json()


ENCODED = 'saccade_stage_duration_seconds_count{stage="encode"}'
DECODED = 'saccade_frames_total{stage="decode",outcome="done"}'


async def test_viewers_share_one_encode_and_leave_one_by_one(http: aiohttp.ClientSession, scene: Scene) -> None:
    server = Server(shutdown__grace_ms=500)
    try:
        async with Peer(scene) as peer, viewers(2) as (one, other):
            session = await connect(http, server.url, peer)
            await peer.pictures.more(3, "pictures of the publisher")
            await one.join(http, server, session)
            await one.pictures.more(5, "pictures of the first viewer")
            await other.join(http, server, session, trickle=True)
            await other.pictures.more(5, "pictures of the second viewer")
            assert (await view(http, server, session))["viewers"] == 2
            assert await metric(http, server, "saccade_viewers_active") == 2
            # Each frame is encoded once at most, however many take it.
            before = [await metric(http, server, it) for it in (ENCODED, DECODED)]
            for it in (one, other):
                await it.pictures.more(15, "more pictures")
            await peer.pictures.more(3, "more pictures of the publisher")
            encoded, decoded = [await metric(http, server, it) - old for it, old in zip((ENCODED, DECODED), before)]
            assert 15 <= encoded <= decoded + 3, (encoded, decoded)
            assert one.pictures[-1].shape == peer.pictures[-1][1].shape

            assert await one.resource.delete() == 200
            assert await one.resource.delete() == 404
            assert (await view(http, server, session))["viewers"] == 1
            await other.pictures.more(10, "pictures after another left")
            await peer.results.more(3, "results after a viewer left")

            async with http.delete(f"{server.url}/v1/sessions/{session}") as answer:
                assert answer.status == 200
            # They end with the session.
            assert await other.resource.delete() == 404
            assert await metric(http, server, "saccade_viewers_active") == 0
            assert await metric(http, server, 'saccade_viewers_total{end_reason="session_ended"}') == 1
    finally:
        server.stop()


async def test_a_session_of_results_encodes_while_it_is_watched(http: aiohttp.ClientSession, scene: Scene) -> None:
    server = Server(shutdown__grace_ms=500)
    try:
        async with Peer(scene, "VP8") as peer, viewers(1, "VP8") as [viewer]:
            session = await connect(http, server.url, peer, {"return": "results"})
            await peer.results.more(5, "results")
            assert await metric(http, server, ENCODED) == 0
            await viewer.join(http, server, session)
            await viewer.pictures.more(10, "pictures")
            assert await metric(http, server, ENCODED) >= 10
            # None of it goes to the publisher.
            assert not peer.pictures and (await view(http, server, session))["counters"]["returned"] == 0
            assert await viewer.resource.delete() == 200
            # A frame may have been under way.
            await peer.results.more(3, "results after the viewer left")
            encoded = await metric(http, server, ENCODED)
            await peer.results.more(10, "results that nobody watches")
            assert await metric(http, server, ENCODED) == encoded
    finally:
        server.stop()


async def test_a_viewer_that_stops_reading_slows_nobody(http: aiohttp.ClientSession, scene: Scene) -> None:
    """The one that stops is a process of its own, which the system halts."""
    server = Server(shutdown__grace_ms=500)
    process = None
    try:
        async with Peer(scene) as peer, viewers(1) as [healthy]:
            session = await connect(http, server.url, peer)
            await peer.pictures.more(2, "pictures of the publisher")
            await healthy.join(http, server, session)
            url = f"{server.url}/v1/whep/{session}"
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(VIEWER), url,
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(LIMIT):
                assert await process.stdout.readline() == b"watching\n"
            process.send_signal(signal.SIGSTOP)
            came = len(healthy.pictures)
            start = asyncio.get_running_loop().time()
            await healthy.pictures.more(60, "pictures beside a viewer that stopped")
            took = asyncio.get_running_loop().time() - start
            # 15 come a second.
            assert took < 10, f"60 pictures after {came} took {took:.1f} s"
            await peer.results.more(3, "results beside a viewer that stopped")

            # Its place is free in the end.
            async with asyncio.timeout(40):
                while (await view(http, server, session))["viewers"] != 1:
                    await healthy.pictures.more(5, "pictures meanwhile")
            name = 'saccade_viewers_total{end_reason="connection_lost"}'
            assert await metric(http, server, name) == 1
    finally:
        if process:
            process.kill()
            await process.wait()
        server.stop()


async def test_what_cannot_be_watched_is_refused(server: Server, http, scene: Scene, witness: Peer) -> None:
    async with viewers(1, "H264") as [viewer], Peer(scene) as silent:
        sdp = await viewer.offer()

        async def refused(session: str, offer: str, status: int, code: str) -> dict:
            async with http.post(f"{server.url}/v1/whep/{session}", data=offer, headers=SDP) as answer:
                problem = await answer.json(content_type="application/problem+json")
                assert (answer.status, problem["code"]) == (status, code), problem
                return dict(answer.headers)

        await refused("none", sdp, 404, "not_found")
        # One that was opened, and sends nothing yet.
        resource = await post(http, f"{server.url}/v1/whip", await silent.offer())
        early = resource.url.rsplit("/", 1)[1]
        headers = {key.lower(): value for key, value in (await refused(early, sdp, 409, "conflict")).items()}
        assert int(headers["retry-after"]) >= 1
        assert await resource.delete() == 200
        # The witness sends VP8.
        watched = witness.results[-1]["session_id"]
        await refused(watched, sdp, 406, "no_common_codec")
        await refused(watched, sdp.replace("a=recvonly", "a=sendonly"), 422, "no_video")
        await refused(watched, "v=0", 400, "bad_sdp")
    await witness.results.more(3, "results of the healthy session")


async def test_viewers_count_against_the_limit(http: aiohttp.ClientSession, scene: Scene) -> None:
    server = Server(admission__mode="fixed", admission__max_sessions=2, shutdown__grace_ms=500)
    try:
        async with Peer(scene) as peer, viewers(2) as (one, other):
            session = await connect(http, server.url, peer)
            await peer.results.more(2, "results")
            await one.join(http, server, session)
            await one.pictures.more(2, "pictures")
            async with http.post(f"{server.url}/v1/whep/{session}", data=await other.offer(), headers=SDP) as answer:
                assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
            # A peer that says goodbye frees its place without being asked.
            await one.close()
            async with asyncio.timeout(LIMIT):
                while (await view(http, server, session))["viewers"]:
                    await peer.results.more(1, "results meanwhile")
            await other.join(http, server, session)
            await other.pictures.more(2, "pictures of the next")
    finally:
        server.stop()
