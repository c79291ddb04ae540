"""Scripts that put load on the HTTP side: what k6 and Artillery are given is right, and they run where they are there."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest
import yaml
from observed import DEPLOY
from server import Server

FOLDER = DEPLOY / "load"
SHAPES = ("smoke", "load", "stress", "spike", "soak")
# Seconds that a short run may take, start of the program included.
LIMIT = 120
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "saccade"


def program(name: str, pattern: str) -> str:
    """Where a program is: on the path, or where scripts/setup.sh puts it."""
    found = shutil.which(name) or next((str(it) for it in sorted(CACHE.glob(pattern), reverse=True)), None)
    if not found and os.environ.get("CI") == "true":
        pytest.fail(f"there is no {name}: scripts/setup.sh test installs it")
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def k6() -> str:
    return program("k6", "k6-*/k6")


@pytest.fixture(scope="module")
def artillery() -> str:
    return program("artillery", "artillery/node_modules/.bin/artillery")


@pytest.fixture(scope="module")
def busy() -> Iterator[Server]:
    server = Server(shutdown__grace_ms=1000)
    yield server
    server.stop()


def run(*words: str | Path, folder: Path = FOLDER, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=LIMIT)


def types(folder: Path) -> subprocess.CompletedProcess:
    """What the compiler says of the scripts in a folder, with k6's own types."""
    return run(FOLDER / "node_modules" / ".bin" / "tsc", "--project", folder)


def test_scripts_for_k6_are_what_its_types_allow(tmp_path: Path) -> None:
    done = types(FOLDER)
    assert done.returncode == 0, done.stdout
    # And the compiler would say otherwise.
    shutil.copytree(FOLDER / "k6", tmp_path / "k6")
    shutil.copy(FOLDER / "tsconfig.json", tmp_path)
    (tmp_path / "node_modules").symlink_to(FOLDER / "node_modules")
    smoke = tmp_path / "k6" / "smoke.js"
    smoke.write_text(smoke.read_text().replace("arrivals(2, [[2, 30]])", 'arrivals("2", [[2, 30]])').replace("setup, visit", "setup, visits as visit"))
    done = types(tmp_path)
    assert "TS2345" in done.stdout and "visits" in done.stdout, done.stdout


def test_both_programs_have_the_same_shapes_with_thresholds() -> None:
    metrics = set(re.findall(r'new (?:Counter|Rate|Trend)\("(\w+)"', (FOLDER / "k6" / "saccade.js").read_text()))
    assert {path.stem for path in (FOLDER / "k6").glob("*.js")} == {*SHAPES, "saccade"}
    assert {path.stem for path in (FOLDER / "artillery").glob("*.yml")} == {*SHAPES, "visits"}
    for shape in SHAPES:
        text = (FOLDER / "k6" / f"{shape}.js").read_text()
        thresholds = re.search(r"thresholds: \{(.*?)\n  \},", text, re.DOTALL)[1]
        names = re.findall(r'^ +"?(\w+)(?:\{scenario:(\w+)\})?"?: \[', thresholds, re.MULTILINE)
        assert {name for name, _ in names} <= metrics | {"checks"}, shape
        assert {"saccade_faults", "saccade_answered", "saccade_latency"} <= {name for name, _ in names}, shape
        assert all(re.search(rf"\b{scenario}: ", text) for _, scenario in names if scenario), shape
        config = yaml.safe_load((FOLDER / "artillery" / f"{shape}.yml").read_text())["config"]
        assert config["phases"] and config["ensure"]["thresholds"] and "ensure" in config["plugins"], shape
        assert (FOLDER / "artillery" / config["processor"]).exists()


def test_visits_name_functions_that_are_there() -> None:
    done = run("node", "-p", "JSON.stringify(Object.keys(require('./artillery/visits.cjs')))")
    functions = set(json.loads(done.stdout))
    text = (FOLDER / "artillery" / "visits.yml").read_text()
    assert set(re.findall(r"(?:beforeRequest|afterResponse): (\w+)", text)) == functions
    (FOLDER / "scene.jpg").stat()


async def test_no_two_pictures_are_the_same_and_all_can_be_read(busy: Server, tmp_path: Path) -> None:
    script = """
        const { picture } = require("./artillery/visits.cjs");
        for (const name of ["a", "b"]) {
          const request = {};
          picture(request, {}, {}, () => require("node:fs").writeFileSync(process.argv[1] + "/" + name, request.body));
        }
    """
    done = run("node", "-e", script, str(tmp_path))
    assert done.returncode == 0, done.stderr
    one, other = (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()
    assert one != other
    decoded = [cv2.imdecode(np.frombuffer(it, np.uint8), cv2.IMREAD_COLOR) for it in (one, other, (FOLDER / "scene.jpg").read_bytes())]
    assert all((it == decoded[0]).all() for it in decoded)
    async with aiohttp.ClientSession() as http:
        for body in (one, other):
            async with http.post(f"{busy.url}/v1/detect", data=body, headers={"content-type": "image/jpeg"}) as answer:
                assert (answer.status, answer.headers["x-cache"]) == (200, "MISS")
                assert (await answer.json())["detections"]


def artillery_smoke(program: str, url: str) -> subprocess.CompletedProcess:
    short = json.dumps({"config": {"phases": [{"duration": 5, "arrivalRate": 2}]}})
    words = ("run", "--config", "artillery/smoke.yml", "--overrides", short, "artillery/visits.yml")
    return run(program, *words, SACCADE_URL=url, ARTILLERY_DISABLE_TELEMETRY="true")


def test_artillery_runs_its_smoke_test(busy: Server, artillery: str) -> None:
    done = artillery_smoke(artillery, busy.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"saccade\.answered: \.+ [1-9]", done.stdout), done.stdout


def test_artillery_fails_where_visits_fail(busy: Server, artillery: str) -> None:
    done = artillery_smoke(artillery, busy.ops)
    assert done.returncode == 1 and "saccade.faults" in done.stdout, done.stdout + done.stderr


def k6_runs(program: str, shape: str, url: str, **environment: str) -> subprocess.CompletedProcess:
    known = {"SACCADE_URL": url, "SACCADE_TIME": "0.2", "K6_NO_USAGE_REPORT": "true"}
    return run(program, "run", "--quiet", f"k6/{shape}.js", **known | environment)


def test_k6_runs_its_smoke_test(busy: Server, k6: str) -> None:
    done = k6_runs(k6, "smoke", busy.url)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("shape, rate", [("load", "1"), ("stress", "0.1"), ("spike", "0.1"), ("soak", "1")])
def test_k6_runs_each_shape_much_shortened(busy: Server, k6: str, shape: str, rate: str) -> None:
    """Each of its stages takes a second, in place of minutes and hours, at rates that any machine bears."""
    done = k6_runs(k6, shape, busy.url, SACCADE_TIME="0.0001", SACCADE_RATE=rate)
    assert done.returncode == 0, done.stdout + done.stderr


def test_k6_fails_where_visits_fail(busy: Server, k6: str) -> None:
    done = k6_runs(k6, "smoke", busy.ops)
    assert done.returncode != 0 and "set SACCADE_URL" in done.stdout + done.stderr, done.stdout + done.stderr
