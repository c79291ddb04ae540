"""The signaling WebSocket: trickle, changes mid-session, farewell, and everything that a client can say wrongly."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiortc import RTCRtpSender
from aiortc.sdp import SessionDescription
from feed import LIMIT
from peer import Peer, Signal, connect, without_candidates
from scene import Scene, SceneTrack
from server import Server

MESSAGE_BYTES = SDP_BYTES = 64 * 1024


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT)) as session:
        yield session


@pytest.fixture
async def signal(http: aiohttp.ClientSession, server: Server) -> AsyncIterator[Signal]:
    """A socket that was greeted."""
    async with await Signal.open(http, server.ws) as signal:
        await signal.expect("welcome")
        yield signal


async def offer_of(scene: Scene, codec: str = "H264") -> str:
    """A good offer whose peer is not there any more."""
    async with Peer(scene, codec) as peer:
        return await peer.offer()


async def test_welcome_says_what_a_client_needs(http: aiohttp.ClientSession, server: Server) -> None:
    async with await Signal.open(http, server.ws) as signal:
        welcome = await signal.expect("welcome")
    assert welcome["protocol"] == 1
    assert re.fullmatch(r"saccade/\d+\.\d+\.\d+", welcome["server"])
    assert welcome["ice_servers"] == []
    assert welcome["models"][0] == "scene-blobs" and "ppe-nano" in welcome["models"]
    assert welcome["limits"] == {
        "width": 1920, "height": 1920, "fps": 60, "message_bytes": MESSAGE_BYTES, "sdp_bytes": SDP_BYTES
    }  # fmt: skip


async def test_a_session_from_trickle_to_bye(http: aiohttp.ClientSession, server: Server, scene: Scene) -> None:
    async with Peer(scene) as peer, await Signal.open(http, server.ws, peer) as signal:
        await signal.expect("welcome")
        sdp = await peer.offer()
        early, late = peer.trickled()[:1], peer.trickled()[1:]
        for candidate in early:
            await signal.send("candidate", candidate=candidate)
        # A browser hides its address behind a name that nobody here can resolve.
        hidden = "candidate:1 1 udp 2122260223 5b1b7e3e-6c2a-4a53-9d0a-000000000000.local 50000 typ host"
        await signal.send("candidate", candidate={"candidate": hidden, "sdpMid": "0", "sdpMLineIndex": 0})
        answer = await signal.negotiate(without_candidates(sdp), options={"budget_ms": 1900, "max_detections": 50})
        assert answer["options"]["budget_ms"] == 1900 and answer["options"]["max_detections"] == 50
        assert answer["options"]["model"] == "scene-blobs" and answer["options"]["return"] == "exact"
        for candidate in late:
            await signal.send("candidate", candidate=candidate | {"usernameFragment": None})
        await signal.send("candidate", candidate=None)

        await peer.results.more(3, "results")
        await peer.pictures.more(3, "pictures")
        assert peer.results[-1]["session_id"] == signal.session_id
        assert peer.results[-1]["budget_ms"] == 1900
        assert signal.candidates and signal.candidates[-1] is None, "the server ends its candidates"

        await signal.send("configure", options={"budget_ms": 1800, "overlay": {"labels": False}})
        options = (await signal.expect("configured"))["options"]
        assert options["budget_ms"] == 1800 and options["max_detections"] == 50
        assert options["overlay"] == {"boxes": True, "labels": False, "timing": False, "zones": False}
        await peer.results.until(lambda it: it[-1]["budget_ms"] == 1800, "result with the new budget")

        await signal.send("bye")
        assert (await signal.expect("closed"))["reason"] == "bye"
        assert await signal.closed() == 1000
        async with http.get(f"{server.url}/v1/sessions/{signal.session_id}") as gone:
            assert gone.status == 404


async def test_an_empty_candidate_ends_candidates_too(http, server: Server, scene: Scene) -> None:
    async with Peer(scene) as peer, await Signal.open(http, server.ws, peer) as signal:
        await signal.expect("welcome")
        await signal.negotiate(await peer.offer(), options={"return": "results"})
        await signal.send("candidate", candidate={"candidate": "", "sdpMid": "0", "sdpMLineIndex": 0})
        await peer.results.more(2, "results")
        await signal.send("bye")
        assert (await signal.expect("closed"))["reason"] == "bye"


async def test_a_second_offer_renegotiates(http, server: Server, scene: Scene) -> None:
    async with Peer(scene) as peer, await Signal.open(http, server.ws, peer) as signal:
        await signal.expect("welcome")
        first = await signal.negotiate(await peer.offer())
        await peer.results.more(2, "results")
        again = await signal.negotiate(await peer.offer(), options={"budget_ms": 1700})
        assert again["session_id"] == first["session_id"]
        assert again["options"]["budget_ms"] == 1700
        await peer.results.until(lambda it: it[-1]["budget_ms"] == 1700, "result with the new budget")
        await peer.pictures.more(3, "pictures")
        await signal.send("bye")
        await signal.expect("closed")


@pytest.mark.parametrize("first", ["H264", "VP8"])
async def test_of_two_cameras_the_first_is_answered(http, server: Server, scene: Scene, first: str) -> None:
    async with Peer(scene, first) as peer, await Signal.open(http, server.ws, peer) as signal:
        second = peer.pc.addTransceiver(SceneTrack(scene), direction="sendrecv")
        codecs = RTCRtpSender.getCapabilities("video").codecs
        second.setCodecPreferences([it for it in codecs if it.mimeType == f"video/{'VP8' if first == 'H264' else 'H264'}"])
        await signal.expect("welcome")
        for _ in range(2):
            # The offer of the renegotiation still has the second camera.
            answer = await signal.negotiate(await peer.offer())
            description = SessionDescription.parse(answer["sdp"])
            assert [(it.kind, it.rtp.muxId) for it in description.media] == [
                ("video", "0"), ("video", "1"), ("application", "2")
            ]  # fmt: skip
            assert [it.port == 0 for it in description.media] == [False, True, False]
            assert [it.items for it in description.group] == [["0", "2"]]
            assert {it.name for it in description.media[0].rtp.codecs} == {first}
            assert (peer.transceiver.currentDirection, second.currentDirection) == ("sendrecv", "inactive")
            await peer.results.more(3, "results")
            await peer.pictures.more(3, "pictures")
            # The section that stands for the transport has all candidates at once, and none follow.
            assert {it.protocol for it in description.media[0].ice_candidates} == {"udp", "tcp"}
            assert description.media[0].ice_candidates_complete
        assert not any(signal.candidates)
        await signal.send("bye")
        await signal.expect("closed")


async def test_media_outlives_its_socket_and_another_takes_it_over(http, server: Server, scene: Scene) -> None:
    async with Peer(scene) as peer:
        async with await Signal.open(http, server.ws, peer) as signal:
            await signal.expect("welcome")
            session_id = (await signal.negotiate(await peer.offer(), options={"budget_ms": 1600}))["session_id"]
            await peer.results.more(2, "results")
        await peer.results.more(3, "results without a socket")
        async with await Signal.open(http, server.ws, peer) as signal:
            await signal.expect("welcome")
            answer = await signal.negotiate(await peer.offer(), session_id=session_id)
            assert answer["session_id"] == session_id
            assert answer["options"]["budget_ms"] == 1600, "what was configured stays"
            await peer.results.more(3, "results after the resumption")
            await signal.send("bye")
            assert (await signal.expect("closed"))["reason"] == "bye"
        async with await Signal.open(http, server.ws, peer) as signal:
            await signal.expect("welcome")
            await signal.send("offer", sdp=await offer_of(scene), session_id=session_id)
            await signal.error("not_found", fatal=False)


# --- wrong messages; after each, other sessions go on ---


async def test_a_binary_message_closes_with_1003(signal: Signal, witness: Peer) -> None:
    await signal.socket.send_bytes(b'{"type":"bye"}')
    await signal.error("bad_request", fatal=True)
    assert await signal.closed() == 1003
    await witness.results.more(2, "results of the healthy session")


@pytest.mark.parametrize("text", ["", "hello", "{", "[]", "7", '{"type":"dance"}', '{"type":"offer"}', '{"sdp":"v=0"}'])
async def test_what_is_no_message_closes_with_1007(signal: Signal, witness: Peer, text: str) -> None:
    await signal.socket.send_str(text)
    await signal.error("bad_request", fatal=True)
    assert await signal.closed() == 1007
    await witness.results.more(1, "results of the healthy session")


async def test_text_that_is_not_utf8_closes_with_1007(http, server: Server, witness: Peer) -> None:
    async with await Signal.open(http, server.ws) as signal:
        await signal.expect("welcome")
        await signal.socket._writer.send_frame(b'{"type":"\xff\xfe"}', aiohttp.WSMsgType.TEXT)
        assert await signal.closed() == 1007
    await witness.results.more(1, "results of the healthy session")


@pytest.mark.parametrize("size", [MESSAGE_BYTES + 1, 900_000, 1_100_000, 12_000_000])
async def test_a_message_over_the_limit_closes_with_1009(signal: Signal, witness: Peer, size: int) -> None:
    frame = json.dumps({"type": "offer", "sdp": ""})
    await signal.socket.send_str(frame.replace('""', f'"{"v" * (size - len(frame))}"'))
    await signal.error("too_large", fatal=True)
    assert await signal.closed() == 1009
    await witness.results.more(1, "results of the healthy session")


async def test_a_message_of_the_largest_size_is_read(signal: Signal) -> None:
    frame = json.dumps({"type": "offer", "sdp": ""})
    await signal.socket.send_str(frame.replace('""', f'"{"v" * (MESSAGE_BYTES - len(frame))}"'))
    await signal.error("bad_sdp", fatal=False)


async def test_bad_offers_have_their_codes_and_the_socket_goes_on(
    http: aiohttp.ClientSession, server: Server, scene: Scene, witness: Peer
) -> None:
    good = await offer_of(scene)
    audio = re.sub(r"m=video(?s:.*?)(?=m=|\Z)", "", good)
    audio += (
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n"
        "a=rtpmap:111 opus/48000/2\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n"
        + re.search(r"a=fingerprint:.*\r\n", good)[0]
        + "a=setup:actpass\r\n"
    )
    av1 = re.sub(r"H264/90000", "AV1/90000", re.sub(r"a=fmtp:.*profile-level-id.*\r\n", "", good))
    assert "AV1/90000" in av1 and "H264" not in av1
    cases: list[tuple[str, dict]] = [
        ("bad_sdp", {"sdp": ""}),
        ("bad_sdp", {"sdp": "v=0"}),
        ("bad_sdp", {"sdp": good[: len(good) // 3].rpartition("\r\n")[0] + "\r\nm=vid"}),
        ("bad_sdp", {"sdp": good.replace("a=ice-ufrag", "a=ice-nothing")}),
        ("bad_sdp", {"sdp": good.replace("a=fingerprint", "a=thumbprint")}),
        ("bad_sdp", {"sdp": "\x00" * 100}),
        ("bad_sdp", {"sdp": "v=0\r\n" + "a=x:y\r\n" * 5000}),
        ("no_video", {"sdp": audio}),
        ("no_video", {"sdp": good.replace("a=sendrecv", "a=recvonly")}),
        ("no_common_codec", {"sdp": av1}),
        ("unknown_model", {"sdp": good, "options": {"model": "dragon"}}),
        ("bad_options", {"sdp": good, "options": {"modle": "scene-blobs"}}),
        ("bad_options", {"sdp": good, "options": {"budget_ms": 9}}),
        ("bad_options", {"sdp": good, "options": {"budget_ms": -1}}),
        ("bad_options", {"sdp": good, "options": {"score_threshold": 1.5}}),
        ("bad_options", {"sdp": good, "options": {"format": "xml"}}),
        ("bad_options", {"sdp": good, "options": {"overlay": {"hats": True}}}),
        ("bad_options", {"sdp": good, "options": 7}),
        ("not_found", {"sdp": good, "session_id": "0" * 32}),
        ("not_found", {"sdp": good, "session_id": "../../etc/passwd"}),
    ]
    async with Peer(scene) as peer, await Signal.open(http, server.ws, peer) as signal:
        await signal.expect("welcome")
        await signal.send("configure", options={})
        await signal.error("conflict", fatal=False)
        for code, fields in cases:
            await signal.send("offer", **fields)
            message = await signal.next()
            assert (message["type"], message.get("code"), message.get("fatal")) == ("error", code, False), (fields, message)
            await witness.results.more(1, "results of the healthy session")
        # The same socket still serves a good offer.
        await signal.negotiate(await peer.offer(), options={"return": "results"})
        await peer.results.more(2, "results")
        for options in [{"modle": 1}, {"classes": ["dragon"]}, {"zones": [{"name": "a", "polygon": [[0, 0]]}]}]:
            await signal.send("configure", options=options)
            await signal.error("bad_options", fatal=False)
        await signal.send("configure", options={"model": "dragon"})
        await signal.error("unknown_model", fatal=False)
        for candidate in ["candidate:nonsense", "x" * 9000]:
            await signal.send("candidate", candidate={"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0})
            await signal.error("bad_request", fatal=False)
        # Not for this server, but no mistake either.
        tcp = "candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype active"
        await signal.send("candidate", candidate={"candidate": tcp, "sdpMid": "0", "sdpMLineIndex": 0})
        await signal.send("candidate", candidate={"candidate": "", "sdpMid": "nowhere", "sdpMLineIndex": 77})
        await signal.send("offer", sdp="v=0")
        await signal.error("bad_sdp", fatal=False)
        await peer.results.more(3, "results after mistakes mid-session")
        await signal.send("bye")
        await signal.expect("closed")


async def test_candidates_without_an_offer_are_bounded(signal: Signal) -> None:
    one = {"candidate": "candidate:1 1 udp 2122260223 127.0.0.1 50000 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
    for _ in range(33):
        await signal.send("candidate", candidate=one)
    await signal.error("bad_request", fatal=False)


async def test_a_flood_closes_with_4429(signal: Signal, witness: Peer) -> None:
    for _ in range(300):
        if signal.socket.closed:
            break
        try:
            await signal.send("configure", options={})
        except ConnectionError:
            break
    messages = []
    async with asyncio.timeout(LIMIT):
        while not messages or messages[-1]["code"] == "conflict":
            messages.append(await signal.expect("error"))
    assert (messages[-1]["code"], messages[-1]["fatal"]) == ("rate_limited", True)
    assert await signal.closed() == 4429
    await witness.results.more(2, "results of the healthy session")


async def test_the_subprotocol_is_needed(http: aiohttp.ClientSession, server: Server) -> None:
    for protocols in [(), ("chat",)]:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(server.ws, protocols=protocols)
        assert refused.value.status == 400
    socket = await http.ws_connect(server.ws, protocols=("chat", "saccade.v1"))
    assert socket.protocol == "saccade.v1"
    await socket.close()


async def test_pages_of_other_origins_are_refused(http: aiohttp.ClientSession, server: Server) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await Signal.open(http, server.ws, origin="https://evil.example")
    assert refused.value.status == 403
    async with await Signal.open(http, server.ws, origin="https://shop.example") as signal:
        await signal.expect("welcome")


async def test_a_session_whose_client_closes_its_connection_ends(http, server: Server, scene: Scene) -> None:
    peer = Peer(scene)
    session = await connect(http, server.url, peer, {"return": "results"})
    await peer.results.more(2, "results")
    await peer.close()

    async def gone() -> None:
        status = 200
        while status != 404:
            async with http.get(f"{server.url}/v1/sessions/{session}") as answer:
                status = answer.status

    # Well before the idle timeout, which is for clients that say nothing.
    async with asyncio.timeout(8):
        await gone()
