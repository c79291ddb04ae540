"""The Python programs of examples/python against real servers, and what they say where something is wrong."""

import asyncio
import importlib.util
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import av
import cv2
import furnished
import numpy as np
import pytest
from furnished import CLIENT, LIVE, VIDEO, environment, words
from scene import Scene
from server import Server, command

SECRET = "a secret of at least thirty-two bytes"
# Seconds that a program may take.
LIMIT = 60


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with furnished.server(tmp_path_factory.mktemp("examples")) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    server = Server(auth__secret=SECRET, shutdown__grace_ms=500)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client() -> ModuleType:
    """The program as programs import it."""
    spec = importlib.util.spec_from_file_location("saccade_client", CLIENT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pictures(scene: Scene, tmp_path: Path) -> Path:
    """A folder with pictures, and one that is none."""
    for ending in (".jpg", ".png", ".webp"):
        (tmp_path / f"photo{ending}").write_bytes(furnished.picture(scene, ending))
    (tmp_path / "note.txt").write_text("no picture")
    return tmp_path


def run(program: Path, server: Server, *more: object, folder: Path | None = None, code: int = 0, **variables: str) -> tuple[str, str]:
    """What a program prints, and what it complains of."""
    done = subprocess.run(
        words(program, *more), cwd=folder, env=environment(server, **variables), capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


# --- saccade_client.py ---


def test_one_picture_is_asked_again_by_its_entity_tag(there: Server, pictures: Path) -> None:
    ask = ("detect", "photo.jpg", "--kept", "kept.json", "--score-threshold", "0.41")
    first, _ = run(CLIENT, there, *ask, folder=pictures)
    found = json.loads(first)
    assert len(found["detections"]) > 2 and {it["class"] for it in found["detections"]} == {"head", "helmet"}
    (kept,) = json.loads((pictures / "kept.json").read_text()).values()
    assert kept["result"] == found and kept["etag"].startswith('"')
    # What is kept is given again without being sent: a mark in it stays.
    kept["result"]["mark"] = "kept"
    (pictures / "kept.json").write_text(json.dumps({name: kept for name in json.loads((pictures / "kept.json").read_text())}))
    again, _ = run(CLIENT, there, *ask, folder=pictures)
    assert json.loads(again) == found | {"mark": "kept"}
    # Another question has an answer of its own.
    other, _ = run(CLIENT, there, *ask[:-1], "0.42", folder=pictures)
    assert "mark" not in json.loads(other)


def test_many_pictures_are_told_one_by_one(there: Server, pictures: Path) -> None:
    names = ["photo.jpg", "photo.png", "note.txt", "photo.webp"]
    out, _ = run(CLIENT, there, "many", *names, folder=pictures)
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert set(lines) == set(names)
    assert lines.pop("note.txt").startswith("unsupported_type: ")
    assert all(re.match(r"(helmet|head) 0\.\d\d at \[", line) for line in lines.values()), lines


def test_boxes_are_drawn_on_a_picture(there: Server, pictures: Path, scene: Scene) -> None:
    for ending in (".jpg", ".png"):
        run(CLIENT, there, "annotate", "photo.png", f"drawn{ending}", folder=pictures)
        drawn = cv2.imread(str(pictures / f"drawn{ending}"))
        before = cv2.imread(str(pictures / "photo.png"))
        assert drawn.shape == before.shape
        assert (np.abs(drawn.astype(int) - before).max(axis=2) > 60).sum() > 500, "there are boxes"
    assert (pictures / "drawn.png").read_bytes().startswith(b"\x89PNG")


def test_models_are_listed_taken_out_and_loaded(there: Server) -> None:
    assert "scene-blobs@2 (default): ready, detect, finds head, helmet" in run(CLIENT, there, "models")[0].splitlines()
    assert run(CLIENT, there, "unload", "scene-blobs@1")[0] == "scene-blobs@1: unloaded\n"
    assert "scene-blobs@1" not in run(CLIENT, there, "models")[0]
    assert "scene-blobs@1: unloaded" in run(CLIENT, there, "models", "--all")[0]
    assert run(CLIENT, there, "load", "scene-blobs@1")[0] == "scene-blobs@1: ready\n"


def test_a_live_session_is_listed_and_its_history_kept(there: Server) -> None:
    with furnished.publisher(there) as session:
        assert re.search(rf"^{session}: connected, scene-blobs, \d+ results$", run(CLIENT, there, "sessions")[0], re.MULTILINE)
        out, _ = run(CLIENT, there, "results", session, "--count", "5")
        assert len(re.findall(r"^frame \d+: ", out, re.MULTILINE)) == 5
        limit = time.monotonic() + LIMIT
        while not (out := run(CLIENT, there, "events", "--session", session, "--type", "zone_entered")[0]):
            assert time.monotonic() < limit, "no event was kept"
        events = [json.loads(line) for line in out.splitlines()]
        assert all(it["session_id"] == session and it["event"]["zone"] == "work" for it in events)


def test_pages_of_history_are_all_read(there: Server, client: ModuleType) -> None:
    with furnished.publisher(there) as session:
        pass
    limit = time.monotonic() + LIMIT
    told: list = []
    # What a session told is written a moment after it ended.
    while len(told) < 3 or paged != told:
        assert time.monotonic() < limit, (paged, told)
        paged = list(client.Saccade(there.url).events(session=session, limit="2"))
        told = list(client.Saccade(there.url).events(session=session))


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (("detect", "photo.jpg", "--model", "dragon"), r"unknown_model: .*there is no `dragon`; known are .*scene-blobs"),
        (("annotate", "note.txt", "drawn.jpg"), r"unsupported_type: .*JPEG"),
        (("load", "dragon"), r"not_found: .*see GET /v1/models"),
        (("unload", "scene-blobs@7"), r"not_found: "),
        (("results", "none"), r"not_found: There is no such session"),
        (("events", "--from", "yesterday"), r"bad_request: `from` is a moment such as "),
        (("--url", "http://127.0.0.1:9", "models"), r"unreachable: No answer from http://127.0.0.1:9; is the server running"),
        (("--url", "{ops}", "models"), r"not_found: There is nothing at this path"),
    ],
)
def test_the_client_says_what_is_wrong(there: Server, pictures: Path, ask: tuple[str, ...], says: str) -> None:
    out, complaint = run(CLIENT, there, *(it.format(ops=there.ops) for it in ask), folder=pictures, code=1)
    assert out == "" and re.match(says, complaint) and complaint.count("\n") == 1, complaint
    assert not (pictures / "drawn.jpg").exists()


def test_a_file_that_is_not_there_is_named(there: Server, pictures: Path) -> None:
    assert run(CLIENT, there, "detect", "gone.jpg", folder=pictures, code=2)[1] == "gone.jpg: No such file or directory\n"


def test_a_token_is_shown_where_one_is_needed(guarded: Server, pictures: Path) -> None:
    made = command("token", "--can-publish", "--sub", "desk", SACCADE_AUTH__SECRET=SECRET).stdout.strip()
    assert run(CLIENT, guarded, "models", code=1)[1].startswith("unauthorized: ")
    assert run(CLIENT, guarded, "load", "scene-blobs", code=1, SACCADE_TOKEN=made)[1].startswith("forbidden: ")
    out, _ = run(CLIENT, guarded, "detect", "photo.jpg", folder=pictures, SACCADE_TOKEN=made)
    assert json.loads(out)["detections"]


def test_a_server_that_is_busy_is_waited_for_as_long_as_there_is_time(client: ModuleType, pictures: Path) -> None:
    server = Server(rate__requests_per_s=1, rate__request_burst=1, rate__loopback="true", shutdown__grace_ms=500)
    try:
        begin, patient = time.monotonic(), client.Saccade(server.url, patience=20)
        for _ in range(3):
            told = list(patient.detect_many([pictures / "photo.jpg", pictures / "photo.png"]))
            assert [len(it["detections"]) > 0 for it in told] == [True, True], "a second try sends the pictures again"
        assert time.monotonic() - begin > 1.8, "two of three waited a second"
        begin = time.monotonic()
        with pytest.raises(client.Problem, match="^rate_limited: .*retry-after") as refused:
            client.Saccade(server.url, patience=0.2).models()
        assert refused.value.status == 429 and time.monotonic() - begin < 0.9, "it waits for nothing that comes too late"
    finally:
        server.stop()


# --- live.py ---


def test_a_video_is_published_and_what_is_found_printed(there: Server) -> None:
    zone = json.dumps({"zones": [furnished.ZONE], "score_threshold": 0.45})
    out, begin = run(LIVE, there, VIDEO, "--count", 60, "--json", "--options", zone)
    told = [json.loads(line) for line in out.splitlines()]
    results = [it for it in told if it["type"] == "result"]
    session = re.fullmatch(r"session (\w+)\n", begin)[1]
    assert len(results) == 60 and {it["session_id"] for it in results} == {session}
    assert all(it["rtp_timestamp_out"] is None for it in results), "no video is wanted back"
    assert any(it["detections"] for it in results)
    assert "zone_entered" in {it["type"] for it in told}
    assert session not in run(CLIENT, there, "sessions")[0], "it is over when the program is"


def test_the_annotated_video_is_saved(there: Server, tmp_path: Path) -> None:
    out, _ = run(LIVE, there, VIDEO, "--save", tmp_path / "annotated.mp4", "--count", 60)
    assert re.search(r"^frame \d+ in \d+ ms(, too late)?: (head|helmet) [01]\.\d\d at \[", out, re.MULTILINE), out
    with av.open(str(tmp_path / "annotated.mp4")) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) > 20 and frames[0].shape == (480, 640, 3)


async def test_a_program_that_is_told_to_end_ends_its_session(there: Server) -> None:
    with furnished.publisher(there) as session:
        assert session in run(CLIENT, there, "sessions")[0]
    assert session not in await asyncio.to_thread(lambda: run(CLIENT, there, "sessions")[0])


@pytest.mark.parametrize(
    ("ask", "code", "says"),
    [
        ((VIDEO, "--options", '{"model": "dragon"}'), 1, r"unknown_model: .*there is no `dragon`; known are .*scene-blobs"),
        ((VIDEO, "--options", '{"budget_ms": 1}'), 1, r"bad_options: .*budget_ms"),
        ((VIDEO, "--options", "[]"), 2, r"(?s).*options are a JSON object"),
        ((CLIENT,), 1, r".*saccade_client\.py cannot be opened as video"),
        (("/dev/video77",), 1, r"/dev/video77 cannot be opened as video; is it a file that FFmpeg plays, or a free camera"),
        ((VIDEO, "--url", "http://127.0.0.1:9"), 1, r"No answer from http://127.0.0.1:9; is the server running"),
    ],
)
def test_the_publisher_says_what_is_wrong(there: Server, ask: tuple[object, ...], code: int, says: str) -> None:
    out, complaint = run(LIVE, there, *ask, code=code)
    assert out == "" and re.match(says, complaint), complaint


def test_a_publisher_shows_its_token(guarded: Server) -> None:
    made = command("token", "--can-publish", "--sub", "desk", SACCADE_AUTH__SECRET=SECRET).stdout.strip()
    assert run(LIVE, guarded, VIDEO, "--count", 1, code=1)[1].startswith("unauthorized: ")
    assert "frame " in run(LIVE, guarded, VIDEO, "--count", 1, SACCADE_TOKEN=made)[0]
