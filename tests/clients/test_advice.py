"""What limits a server is named right: real overloads from the load generator, seen from outside."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


def test_big_pictures_that_do_not_come_back_bind_decoding() -> None:
    with serving(threads__codec=1) as server:
        with load(server, "--sessions", 16, "--size", "1280x720", "--fps", 60, "--return", "results") as process:
            begin(server, process, 16)
            found = most_limiting(server, process, "decode_bound")
    assert found["evidence"]["decode_processors"] > 0.4, found


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
    told = command("doctor", "--live", "http://127.0.0.1:9", "--window", "1")
    assert told.returncode == 69 and "ops.listen" in told.stderr, told.stderr
    told = command("doctor", "--live", server.url, "--window", "1")
    assert told.returncode == 69 and "ops.listen" in told.stderr, told.stderr
    told = command("doctor", "--live", "127.0.0.1:9180")
    assert told.returncode == 64 and "http://127.0.0.1:9180" in told.stderr, told.stderr
    for words in (["--window", "5"], ["--live", server.ops, "--window", "0"], ["--live", server.ops, "--measure"]):
        assert command("doctor", *words).returncode == 64, words
