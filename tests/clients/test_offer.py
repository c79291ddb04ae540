"""Live video over `POST /v1/offer`, in the manner of aiortc's own examples."""

import asyncio

import aiohttp
import numpy as np
import pytest
from feed import LIMIT
from peer import Peer, connect
from scene import Score
from server import Server


def found(result: dict) -> list[tuple[np.ndarray, int]]:
    return [(np.array(it["box"]), it["class_id"]) for it in result["detections"]]


@pytest.mark.parametrize(("codec", "path"), [("H264", "/v1/offer"), ("VP8", "/offer")])
async def test_annotated_video_and_exact_results_come_back(
    server: Server, http: aiohttp.ClientSession, scene, codec: str, path: str
) -> None:
    async with Peer(scene, codec) as peer:
        session = await connect(http, server.url, peer, {"model": "scene-blobs"}, path=path)
        await peer.results.until(lambda it: len(it) >= 45, "45 results")
        await peer.pictures.until(lambda it: len(it) >= 30, "30 pictures")
        assert peer.pc.connectionState == "connected"
        assert not peer.opened, "the client's own channel is used"
        async with asyncio.timeout(LIMIT):
            while True:
                async with http.get(f"{server.url}/v1/sessions/{session}") as answer:
                    network = (await answer.json())["transport"]
                # aiortc reports on what it receives once a second or so.
                if network["outbound"]["packets_lost"] is not None and network["round_trip_ms"] is not None:
                    break
                await asyncio.sleep(0.2)
        assert network["local_candidate"] == "host" and network["protocol"] == "udp"
        assert network["outbound"]["packets_lost"] == 0 == network["inbound"]["packets_lost"]
        assert network["inbound"]["packets"] > 0 and network["outbound"]["packets"] > 0

    score = Score()
    for result in peer.results:
        assert (result["type"], result["version"], result["session_id"]) == ("result", 1, session)
        assert (result["width"], result["height"]) == (scene.width, scene.height)
        assert result["model"] == "scene-blobs@1"
        for it in result["detections"]:
            assert it["class"] == scene.classes[it["class_id"]]
            assert 0 < it["score"] <= 1
        timing = result["timing_ms"]
        assert timing["total"] >= timing["inference"] > 0 and timing["decode"] > 0
        score.add(found(result), peer.heads(result))
    score.check()

    frame_ids = [result["frame_id"] for result in peer.results]
    assert len(set(frame_ids)) == len(frame_ids), "one result a frame"

    # Results and returned frames find each other by the RTP timestamp on the wire.
    by_time = {result["rtp_timestamp_out"]: result for result in peer.results}
    assert None not in by_time
    assert set(by_time) & set(peer.received), "no result names a timestamp that came over the wire"
    joined = [(picture, by_time[time]) for time, picture in peer.pictures if time in by_time]
    assert len(joined) >= 0.9 * len(peer.pictures), f"{len(joined)} of {len(peer.pictures)} pictures joined"

    drawn = 0
    for picture, result in joined:
        sent, back = scene.luma(peer.number(result["rtp_timestamp_in"])).astype(int), picture[: scene.height]
        assert back.shape == sent.shape
        changed = np.abs(sent - back)
        assert np.median(changed) < 8, "the picture is not the one that was sent"
        for it in result["detections"]:
            x1, y1, x2, _ = it["box"]
            x, y = int((x1 + x2) / 2), int(max(y1, 1))
            drawn += bool(changed[max(y - 2, 0) : y + 3, x].max() > 12)
    boxes = sum(len(result["detections"]) for _, result in joined)
    assert drawn >= 0.9 * boxes > 0, f"{drawn} of {boxes} boxes are drawn"


async def test_the_server_opens_results_for_a_client_that_did_not(server: Server, http, scene) -> None:
    async with Peer(scene, channels=("chat",)) as peer:
        session = await connect(http, server.url, peer, {"return": "results"})
        await peer.results.more(3, "results")
        assert list(peer.opened) == ["results"]
        channel = peer.channels["results"]
        assert (channel.ordered, channel.maxRetransmits) == (False, 0)
        # What it does not know, it leaves alone.
        peer.channels["chat"].send("hello")
        peer.channels["chat"].send(b"\x00\xff")
        later = await peer.results.more(3, "results after other messages")
        assert all(it["session_id"] == session and it["rtp_timestamp_out"] is None for it in later)
        assert not peer.pictures and not peer.messages


async def test_options_change_over_the_control_channel(server: Server, http, scene) -> None:
    async with Peer(scene, channels=("results", "control")) as peer:
        await connect(http, server.url, peer, {"return": "results"})
        await peer.results.more(1, "results")
        control = peer.channels["control"]

        control.send('{"type":"configure","options":{"classes":["helmet"],"budget_ms":1500}}')
        [reply] = await peer.messages.more(1, "answer to configure")
        assert reply["type"] == "configured", reply
        assert (reply["options"]["classes"], reply["options"]["budget_ms"]) == (["helmet"], 1500)
        await peer.results.until(lambda it: it[-1]["budget_ms"] == 1500, "result with the new budget")
        later = await peer.results.more(5, "results after configure")
        assert {it["class"] for result in later for it in result["detections"]} == {"helmet"}

        for bad, code in [
            ('{"type":"configure","options":{"clases":[]}}', "bad_options"),
            ('{"type":"configure","options":{"classes":["dragon"]}}', "bad_options"),
            ('{"type":"configure","options":{"model":"dragon"}}', "unknown_model"),
            ("{", "bad_request"),
            ('{"type":"dance"}', "bad_request"),
        ]:
            control.send(bad)
            [reply] = await peer.messages.more(1, f"answer to {bad}")
            assert (reply["type"], reply["code"], reply["fatal"]) == ("error", code, False), reply
        await peer.results.more(2, "results after bad messages")


async def test_events_tell_of_the_track_and_its_size(server: Server, http, scene) -> None:
    async with Peer(scene, channels=("results", "events")) as peer:
        await connect(http, server.url, peer, {"return": "results"})
        await peer.results.more(1, "results")
        await peer.messages.until(lambda it: len(it) >= 2, "events")
        kinds = {it["type"]: it for it in peer.messages}
        assert kinds["track_started"]["codec"].upper() == "H264"
        assert (kinds["resolution_changed"]["width"], kinds["resolution_changed"]["height"]) == (640, 480)
