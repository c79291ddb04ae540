"""aiortc as a client of Saccade, and its two ways to signal."""

import asyncio
import json
from typing import Self

import aiohttp
import numpy as np
from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import candidate_from_sdp, candidate_to_sdp
from feed import LIMIT, Feed
from scene import Scene, SceneTrack

SUBPROTOCOL = "saccade.v1"


class Peer:
    """One aiortc connection that sends the scene. The data channels named in `channels` are its own to open."""

    def __init__(
        self,
        scene: Scene,
        codec: str = "H264",
        channels: tuple[str, ...] = ("results",),
        fps: int = 15,
        ice_servers: tuple[RTCIceServer, ...] = (),
    ) -> None:
        self.scene = scene
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=list(ice_servers)))
        self.track = SceneTrack(scene, fps)
        self.transceiver = self.pc.addTransceiver(self.track, direction="sendrecv")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        self.transceiver.setCodecPreferences([it for it in codecs if it.mimeType == f"video/{codec}"])
        # Results, returned pictures by RTP timestamp, messages of other channels, and channels the server opened.
        self.results, self.pictures, self.messages, self.opened = Feed(), Feed(), Feed(), Feed()
        self.channels: dict[str, RTCDataChannel] = {}
        self.tasks: list[asyncio.Task] = []
        self.received: Feed = Feed()
        self.first_sent: int | None = None
        for label in channels:
            unreliable = {"ordered": False, "maxRetransmits": 0} if label == "results" else {}
            self.listen(self.pc.createDataChannel(label, **unreliable))
        self.pc.on("datachannel", self.on_channel)
        self.pc.on("track", lambda track: self.tasks.append(asyncio.ensure_future(self.watch(track))))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await self.pc.close()

    async def offer(self) -> str:
        """The offer, with all candidates in it."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def answer(self, sdp: str) -> None:
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        self.tap()

    async def candidate(self, init: dict | None) -> None:
        """A candidate that the server trickled."""
        if init is None or not init["candidate"]:
            await self.pc.addIceCandidate(None)
            return
        candidate = candidate_from_sdp(init["candidate"].removeprefix("candidate:"))
        candidate.sdpMid, candidate.sdpMLineIndex = init["sdpMid"], init["sdpMLineIndex"]
        await self.pc.addIceCandidate(candidate)

    def trickled(self) -> list[dict]:
        """The own candidates as a browser would trickle them."""
        gatherer = self.transceiver.sender.transport.transport.iceGatherer
        return [
            {"candidate": f"candidate:{candidate_to_sdp(it)}", "sdpMid": self.transceiver.mid, "sdpMLineIndex": 0}
            for it in gatherer.getLocalCandidates()
        ]

    # --- what the wire carries ---

    def tap(self) -> None:
        """Notes RTP timestamps as they are on the wire: aiortc shows them to nobody."""
        transport, receiver = self.transceiver.sender.transport, self.transceiver.receiver
        send, handle = transport._send_rtp, receiver._handle_rtp_packet

        async def sending(data: bytes) -> None:
            # RTCP has packet types 192 to 223 (RFC 5761 section 4).
            if self.first_sent is None and not 192 <= data[1] <= 223:
                self.first_sent = int.from_bytes(data[4:8], "big")
            await send(data)

        async def receiving(packet, arrival_time_ms: int) -> None:
            if packet.payload:
                self.received.add(packet.timestamp)
            await handle(packet, arrival_time_ms=arrival_time_ms)

        transport._send_rtp, receiver._handle_rtp_packet = sending, receiving

    def number(self, rtp_timestamp_in: int) -> int:
        """Number of the sent frame that has this RTP timestamp."""
        ticks = (rtp_timestamp_in - self.first_sent) % 2**32
        # aiortc's VP8 encoder rounds a tick down here and there.
        number = (ticks + 1) // self.track.step
        assert number * self.track.step - ticks in (0, 1), f"no frame was sent with {rtp_timestamp_in}"
        assert number <= self.track.number, f"frame {number} was not sent yet"
        return number

    def heads(self, result: dict) -> list[tuple[np.ndarray, int]]:
        """The true boxes of a result's frame."""
        return self.scene.heads(self.number(result["rtp_timestamp_in"]))

    async def watch(self, track) -> None:
        try:
            while True:
                frame = await track.recv()
                # aiortc counts from the first frame.
                time = (self.received[0] + frame.pts) % 2**32
                self.pictures.add((time, frame.to_ndarray(format="yuv420p")))
        except MediaStreamError:
            pass

    def on_channel(self, channel: RTCDataChannel) -> None:
        self.opened.add(channel.label)
        self.listen(channel)

    def listen(self, channel: RTCDataChannel) -> None:
        self.channels[channel.label] = channel
        feed = self.results if channel.label == "results" else self.messages

        @channel.on("message")
        def on_message(message: str) -> None:
            feed.add(json.loads(message))


async def post_offer(
    http: aiohttp.ClientSession, url: str, sdp: str, options: dict | None = None, path: str = "/v1/offer", **more
) -> dict:
    """Signals as aiortc's own examples do."""
    body = {"sdp": sdp, "type": "offer"} | ({} if options is None else {"options": options})
    async with http.post(f"{url}{path}", json=body, **more) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "application/json"
        return await answer.json()


async def connect(http: aiohttp.ClientSession, url: str, peer: Peer, options: dict | None = None, **more) -> str:
    """Opens a session over `POST /v1/offer`; its id."""
    answer = await post_offer(http, url, await peer.offer(), options, **more)
    assert answer["type"] == "answer"
    await peer.answer(answer["sdp"])
    return answer["session_id"]


class Closed(Exception):
    """The server closed the socket."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class Signal:
    """The signaling WebSocket. Candidates go to `peer`; every other message waits for `expect`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, peer: Peer | None) -> None:
        self.socket, self.peer = socket, peer
        self.candidates: list[dict | None] = []
        self.session_id: str | None = None
        self._early: list[dict | None] = []
        self._answered = False
        self._messages: asyncio.Queue = asyncio.Queue()
        self._reader = asyncio.ensure_future(self._read())

    @classmethod
    async def open(cls, http: aiohttp.ClientSession, url: str, peer: Peer | None = None, **more) -> Self:
        socket = await http.ws_connect(url, protocols=(SUBPROTOCOL,), max_msg_size=0, **more)
        assert socket.protocol == SUBPROTOCOL
        return cls(socket, peer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        async with asyncio.timeout(LIMIT):
            await self.socket.close()

    async def _read(self) -> None:
        while True:
            message = await self.socket.receive()
            if message.type != aiohttp.WSMsgType.TEXT:
                await self._messages.put(Closed(self.socket.close_code, str(message.extra or "")))
                return
            value = json.loads(message.data)
            if value["type"] == "candidate" and self.peer:
                self.candidates.append(value["candidate"])
                if self._answered:
                    await self.peer.candidate(value["candidate"])
                else:
                    self._early.append(value["candidate"])
            else:
                await self._messages.put(value)

    async def send(self, kind: str, **fields: object) -> None:
        await self.socket.send_json({"type": kind} | fields)

    async def next(self) -> dict:
        """The next message; raises [`Closed`] when there is none any more."""
        async with asyncio.timeout(LIMIT):
            message = await self._messages.get()
        if isinstance(message, Closed):
            self._messages.put_nowait(message)
            raise message
        return message

    async def expect(self, kind: str) -> dict:
        """The next message, which has to be of this kind."""
        message = await self.next()
        assert message["type"] == kind, message
        return message

    async def error(self, code: str, fatal: bool) -> dict:
        """The next message, which has to be this error."""
        message = await self.expect("error")
        assert (message["code"], message["fatal"]) == (code, fatal), message
        # A sentence for people.
        assert message["message"].endswith("."), message
        return message

    async def closed(self) -> int:
        """The code of the close frame, which has to be next."""
        try:
            message = await self.next()
        except Closed as closed:
            return closed.code
        raise AssertionError(f"a message came instead of the close: {message}")

    async def negotiate(self, sdp: str, **fields: object) -> dict:
        """Sends an offer and takes its answer."""
        await self.send("offer", sdp=sdp, **fields)
        answer = await self.expect("answer")
        await self.peer.answer(answer["sdp"])
        self._answered = True
        for candidate in self._early:
            await self.peer.candidate(candidate)
        self._early.clear()
        self.session_id = answer["session_id"]
        return answer


def without_candidates(sdp: str) -> str:
    """A description as a browser that trickles sends it."""
    lines = sdp.splitlines(keepends=True)
    return "".join(it for it in lines if not it.startswith(("a=candidate:", "a=end-of-candidates")))
