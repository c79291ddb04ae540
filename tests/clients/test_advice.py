"""What limits a server is named right: real overloads from the load generator, seen from outside."""

import hashlib
import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from netns import Network, need_namespaces
from server import BINARY, ROOT, Server, command

ASSETS = Path(os.environ.get("SACCADE_TEST_ASSETS") or ROOT.parent / "shared")
SECRET = "a secret of at least thirty-two bytes"
# Seconds within which an overload has to be named.
LIMIT = 20
# Clips are encoded before anything is sent.
CLIP_LIMIT = 60


def advice(server: Server) -> dict:
    with urllib.request.urlopen(f"{server.url}/v1/advice", timeout=5) as answer:
        assert answer.headers["cache-control"] == "no-store"
        return json.load(answer)


def sessions(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/v1/sessions", timeout=5) as answer:
        return len(json.load(answer))


@contextmanager
def load(
    server: Server, *words: object, path: str = "/v1/signal", within: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen]:
    """The load generator at work."""
    url = (server.ws.removesuffix("/v1/signal") if path == "/v1/signal" else server.url) + path
    program = [*within, BINARY, "bench", "-q", "--url", url, "--probe", "0", "--duration", "120s", "--ramp", "20/s", *map(str, words)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ticks(process: subprocess.Popen, seconds: float) -> Iterator[None]:
    """Twice a second while the process runs, which it has to."""
    for _ in range(int(2 * seconds)):
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            yield
        else:
            raise AssertionError(process.stderr.read())


def most_limiting(server: Server, process: subprocess.Popen, code: str) -> dict:
    """The first finding, once it is this one and more than a remark."""
    told: dict = {}
    for _ in ticks(process, LIMIT):
        told = advice(server)
        first = next(iter(told["findings"]), None)
        if first and first["code"] == code and first["severity"] != "info":
            return first
    raise AssertionError(f"{code} was not named within {LIMIT} s: {told}")


def begin(server: Server, process: subprocess.Popen, count: int) -> None:
    for _ in ticks(process, CLIP_LIMIT):
        if sessions(server) >= count:
            return
    raise AssertionError("the sessions did not begin")


@contextmanager
def serving(**settings: object) -> Iterator[Server]:
    server = Server(shutdown__grace_ms=500, admission__mode="off", **settings)
    try:
        yield server
    finally:
        server.stop()


def test_a_heavy_model_is_named_and_the_command_says_the_same(tmp_path: Path) -> None:
    graph = ASSETS / "models" / "yolox_nano_416.onnx"
    if not graph.exists():
        assert os.environ.get("CI") != "true", f"{graph} is not there"
        pytest.skip(f"there is no {graph}")
    place = tmp_path / "yolox-nano" / "1"
    place.mkdir(parents=True)
    for file in (ROOT / "tests" / "data" / "models" / "yolox-nano" / "1").iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    (place / "model.onnx").write_bytes(graph.read_bytes())
    # One instance has too much to do on any machine.
    with (place / "manifest.toml").open("a") as manifest:
        manifest.write("\n[run]\ninstances = 1\n")
    settings = {"models__dir": tmp_path, "models__default": "yolox-nano", "hw__infer": "off"}
    with serving(**settings) as server, load(server, "--sessions", 16, "--return", "results") as process:
        begin(server, process, 16)
        found = most_limiting(server, process, "inference_bound")
        assert found["message"].startswith("yolox-nano@1 ") and found["evidence"]["frames_lost_ratio"] > 0.02, found
        assert found["runbook"] == "deploy/runbooks/inference_bound.md"
        told = command("doctor", "--live", server.ops, "--window", "3", "--json")
        assert told.returncode == 0, told.stderr
        view = json.loads(told.stdout)
        assert view["findings"][0]["code"] == "inference_bound" and 2.9 < view["window_s"] < 10, view
        told = command("doctor", "--live", server.ops, "--window", "2")
        assert "inference_bound: yolox-nano@1" in told.stdout and "→ " in told.stdout, told.stdout


def test_big_pictures_that_do_not_come_back_bind_decoding(tmp_path: Path) -> None:
    # A model that takes next to nothing, also where other programs take most of the machine.
    name = sociable(tmp_path, side=8)
    settings = {"models__dir": tmp_path, "models__default": name, "models__calibration": "off", "hw__infer": "off"}
    with serving(threads__codec=1, **settings) as server:
        with load(server, "--sessions", 16, "--size", "1280x720", "--fps", 60, "--return", "results") as process:
            begin(server, process, 16)
            found = most_limiting(server, process, "decode_bound")
    # What the one codec thread does is decoding, however much of a processor others leave it.
    evidence = found["evidence"]
    assert evidence["decode_processors"] > 0.5 * evidence["codec_threads_busy_ratio"] > 0, found


def test_big_pictures_that_come_back_bind_encoding() -> None:
    with serving(threads__codec=1) as server:
        with load(server, "--sessions", 12, "--size", "1280x720", "--return", "predicted") as process:
            begin(server, process, 12)
            found = most_limiting(server, process, "encode_bound")
    assert found["evidence"]["encode_processors"] > found["evidence"]["codec_threads_busy_ratio"] * 0.4, found


def test_a_path_that_loses_packets_is_named() -> None:
    need_namespaces()
    with Network() as network:
        side = network.within("server")
        settings = {"auth__secret": SECRET, "shutdown__grace_ms": 500}
        server = Server(within=side, host=Network.SERVER, **settings)
        try:
            network.drop("meta l4proto udp numgen random mod 100 < 25")
            token = command("token", "--can-publish", SACCADE_AUTH__SECRET=SECRET).stdout.strip()
            words = ["--sessions", 2, "--return", "results", "--token", token]
            with load(server, *words, within=network.within("client")) as process:
                found: list[dict] = []
                for _ in ticks(process, LIMIT):
                    told = command("doctor", "--live", server.ops, "--window", "3", "--json", within=side)
                    found = json.loads(told.stdout)["findings"]
                    # Most of what is lost is sent again; what is lost for good spoils whole frames.
                    if found and found[0]["code"] == "network_loss" and found[0]["evidence"]["frames_broken_ratio"] > 0.02:
                        break
                else:
                    raise AssertionError(f"the loss was not named: {found}")
        finally:
            server.stop()
    assert found[0]["severity"] != "info" and found[0]["setting"], found


def test_pictures_that_never_come_again_make_the_cache_useless() -> None:
    with serving() as server:
        words = ["--distinct", "--concurrency", 1, "--rate", "20/s"]
        with load(server, *words, path="/v1/detect") as process:
            told: dict = {}
            for _ in ticks(process, CLIP_LIMIT):
                told = advice(server)
                codes = [finding["code"] for finding in told["findings"]]
                if "cache_useless" in codes:
                    break
            else:
                raise AssertionError(f"the cache was not named: {told}")
    assert not {"decode_bound", "inference_bound", "encode_bound"} & set(codes), told


MANIFEST = """
name = "{name}"
version = "1"
task = "detect"
licence = "MIT"
[file]
path = "model.onnx"
sha256 = "{sha256}"
[input]
tensor = "images"
layout = "nchw"
color = "rgb"
size = [64, 64]
resize = "stretch"
pad = 114
mean = [0.0, 0.0, 0.0]
scale = [0.00392156862745098, 0.00392156862745098, 0.00392156862745098]
[output]
decoder = "yolov8"
[classes]
names = ["one", "other"]
[run]
{run}
[batching]
{batching}
"""


def sociable(folder: Path, side: int = 768) -> str:
    """A model in `folder` whose run takes as long as two frames do, and each frame's time: a frame among others costs less
    and takes longer. Its name."""
    initial = {
        "weights": np.full((side, side), 1 / side, np.float32),
        "nothing": np.zeros((), np.float32),
        "places": np.arange(side, dtype=np.int64),
        "column": np.array([2], np.int64),
        "row": np.array([1], np.int64),
    }
    node = onnx.helper.make_node
    nodes = [
        # Once a run.
        node("ReduceMean", ["images"], ["mean"], keepdims=0),
        node("Mul", ["weights", "mean"], ["a"]),
        node("MatMul", ["a", "weights"], ["b"]),
        node("MatMul", ["b", "weights"], ["c"]),
        node("ReduceMean", ["c"], ["d"], keepdims=0),
        # Once a frame.
        node("Flatten", ["images"], ["pixels"], axis=1),
        node("Gather", ["pixels", "places"], ["some"], axis=1),
        node("Unsqueeze", ["some", "column"], ["tall"]),
        node("Unsqueeze", ["some", "row"], ["wide"]),
        node("Mul", ["tall", "wide"], ["square"]),
        node("MatMul", ["square", "weights"], ["e"]),
        node("ReduceMean", ["e"], ["f"], axes=[1, 2], keepdims=1),
        # The means of the channels, whatever came out.
        node("Add", ["d", "f"], ["g"]),
        node("Mul", ["g", "nothing"], ["zero"]),
        node("ReduceMean", ["images"], ["channels"], axes=[2, 3], keepdims=0),
        node("Concat", ["channels", "channels"], ["six"], axis=1),
        node("Unsqueeze", ["six", "column"], ["boxes"]),
        node("Add", ["boxes", "zero"], ["output0"]),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "sociable",
        [value("images", onnx.TensorProto.FLOAT, ["frames", 3, 64, 64])],
        [value("output0", onnx.TensorProto.FLOAT, ["frames", 6, 1])],
        [onnx.numpy_helper.from_array(array, name) for name, array in initial.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    put(folder, "sociable", model.SerializeToString(), "instances = 1\nprecision = 'fp32'\nbackend = 'cpu'", "max_batch = 16\nmax_delay_ms = 1000")
    return "sociable"


def put(folder: Path, name: str, graph: bytes, run: str, batching: str) -> None:
    place = folder / name / "1"
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(graph)
    sha256 = hashlib.sha256(graph).hexdigest()
    (place / "manifest.toml").write_text(MANIFEST.format(name=name, sha256=sha256, run=run, batching=batching))


def metric(server: Server, line: str) -> float | None:
    with urllib.request.urlopen(f"{server.ops}/metrics", timeout=5) as answer:
        found = re.search(rf"^{re.escape(line)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else None


def test_frames_that_take_long_for_the_sake_of_others_are_named(tmp_path: Path) -> None:
    name, fps, seen = sociable(tmp_path), 3, []
    settings = {"models__dir": tmp_path, "models__default": name, "models__calibration": "off", "hw__infer": "off"}
    settings |= {"session__resume_ms": 0, "session__idle_timeout_ms": 1000}
    # A short pause of the machine loses no frames, and none are left out on purpose.
    settings |= {"session__budget_ms": 1000, "degradation__mode": "off"}
    with serving(**settings) as server:
        alone = metric(server, f'saccade_model_frame_seconds{{model="{name}@1"}}')
        assert alone and alone > 0, alone
        # As much as keeps company without losing frames is between what frames alone and full batches make possible.
        few, many, count = 1, None, max(2, round(1.9 / alone / fps))
        for _ in range(8):
            words = ["--sessions", count, "--size", "128x128", "--fps", fps, "--return", "results"]
            with load(server, *words) as process:
                begin(server, process, count)
                flows(server, process, count * fps)
                told = command("doctor", "--live", server.ops, "--window", "5", "--json")
                assert told.returncode == 0, told.stderr
            findings = {finding["code"]: finding for finding in json.loads(told.stdout)["findings"]}
            seen.append((count, alone, findings))
            if "batch_wait" in findings:
                break
            if findings.get("inference_bound", {}).get("severity") in ("warning", "critical"):
                many = count
            else:
                few = count
            count = round((few * (many or 2 * few)) ** 0.5)
            none_left(server)
    found = seen[-1][2].get("batch_wait")
    assert found, seen
    evidence = found["evidence"]
    assert found["setting"] == "manifest: batching.max_delay_ms" and evidence["batch_frames"] >= 1.5, found
    assert evidence["batch_ms"] - evidence["alone_ms"] >= 5, found


def flows(server: Server, process: subprocess.Popen, fps: float) -> None:
    """Waits until most of so many frames a second come, or for as long as that may take."""
    before = None
    for _ in ticks(process, LIMIT):
        now = metric(server, 'saccade_frames_total{stage="ingest",outcome="done"}') or 0
        if before is not None and now - before > 0.7 * fps * 0.5:
            return
        before = now


def none_left(server: Server) -> None:
    deadline = time.monotonic() + CLIP_LIMIT
    while sessions(server):
        assert time.monotonic() < deadline, "the sessions do not end"
        time.sleep(0.2)


def test_one_session_that_a_model_is_too_slow_for_is_named_beside_idle_instances(tmp_path: Path) -> None:
    name = sociable(tmp_path, side=1024)
    manifest = tmp_path / name / "1" / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("instances = 1", "instances = 4").replace("max_batch = 16", "max_batch = 1"))
    with serving(models__dir=tmp_path, models__default=name, models__calibration="off", hw__infer="off") as server:
        with load(server, "--sessions", 1, "--size", "128x128", "--fps", 60, "--return", "results") as process:
            begin(server, process, 1)
            found = most_limiting(server, process, "inference_bound")
    assert found["setting"] == "models.default", found
    evidence = found["evidence"]
    assert evidence["instances_busy_ratio"] < 0.5, found
    # Where all processors are busy, those are what there is too little of.
    assert evidence.get("frame_interval_ms", 0) < 30 and ("frame_interval_ms" in evidence or evidence["processors_busy_ratio"] >= 0.9), found


def test_nothing_limits_a_server_that_has_little_to_do() -> None:
    with serving() as server, load(server, "--sessions", 1, "--size", "320x240", "--fps", 10) as process:
        begin(server, process, 1)
        seen = 0
        for _ in ticks(process, LIMIT):
            told = advice(server)
            assert told["findings"] == [], told
            seen += told["window_s"] > 5
            if seen > 4:
                break
        assert seen > 4, "the server takes samples"
        told = command("doctor", "--live", server.ops, "--window", "2")
        assert told.returncode == 0 and "Nothing limits the server" in told.stdout, told.stdout


def test_what_is_no_server_is_told(server: Server) -> None:
    told = command("doctor", "--live", "http://127.0.0.1:9", "--window", "2")
    assert told.returncode == 69 and "ops.listen" in told.stderr, told.stderr
    told = command("doctor", "--live", server.url, "--window", "2")
    assert told.returncode == 69 and "ops.listen" in told.stderr, told.stderr
    told = command("doctor", "--live", "127.0.0.1:9180")
    assert told.returncode == 64 and "http://127.0.0.1:9180" in told.stderr, told.stderr
    for words in (["--window", "5"], ["--live", server.ops, "--window", "0"], ["--live", server.ops, "--measure"]):
        assert command("doctor", *words).returncode == 64, words
