"""Result formats: what users of the `supervision` package and of COCO tools read from a live session."""

import aiohttp
import numpy as np
import pytest
import supervision as sv
import supervision_check
from peer import Peer, connect
from scene import Scene, Score
from server import Server


def read(form: str, result: dict) -> sv.Detections:
    """A result's detections, as `supervision` takes them."""
    match form:
        case "coco":
            return supervision_check.coco(result["detections"])
        case "roboflow":
            return sv.Detections.from_inference(result["detections"])
        case "supervision":
            return supervision_check.columns(result["detections"])


def test_the_golden_files_agree_with_each_other() -> None:
    supervision_check.main([])


@pytest.mark.parametrize("form", ["coco", "roboflow", "supervision"])
async def test_a_live_session_speaks(http: aiohttp.ClientSession, server: Server, scene: Scene, form: str) -> None:
    async with Peer(scene, channels=("results", "control")) as peer:
        session = await connect(http, server.url, peer, {"return": "results", "format": form, "score_threshold": 0.5})
        await peer.results.more(20, f"results in {form}")
        mixed = list(peer.results)
        # Back to our own format, mid-session.
        peer.channels["control"].send('{"type":"configure","options":{"format":"saccade"}}')
        [reply] = await peer.messages.more(1, "answer to configure")
        assert reply["options"]["format"] == "saccade"
        start = len(peer.results)
        await peer.results.until(
            lambda it: any("box" in one for result in it[start:] for one in result["detections"]), "our own format"
        )

    score, annotator = Score(), sv.BoxAnnotator()
    for result in mixed:
        # Only the shape of the detections differs.
        assert (result["type"], result["session_id"], result["width"]) == ("result", session, scene.width)
        assert result["timing_ms"]["total"] > 0
        detections = read(form, result)
        truth = peer.heads(result)
        score.add(list(zip(detections.xyxy.astype(float), detections.class_id, strict=True)), truth)
        if not len(detections):
            continue
        assert ((detections.confidence >= 0.5) & (detections.confidence <= 1)).all()
        if form != "coco":
            names = [scene.classes[it] for it in detections.class_id]
            assert list(detections.data["class_name"]) == names
        picture = np.zeros((scene.height, scene.width, 3), dtype=np.uint8)
        assert annotator.annotate(picture, detections).any(), "the boxes do not lie in the frame"
    score.check()
