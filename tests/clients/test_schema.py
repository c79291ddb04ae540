"""Every operation of the API as its description says, and as it does not: schemathesis asks a live server, and no answer may be
a server's error, or one that the description does not have.

SCHEMATHESIS_SECONDS is how long the longest run may take; by default a minute."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import furnished
from server import Server, command

HERE = Path(__file__).resolve().parent
SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "60"))
SECRET = "a secret of at least thirty-two bytes"
METHODS = {"get", "put", "post", "patch", "delete", "head", "options"}
PHASES = ("examples", "coverage", "fuzzing", "stateful")
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
# Beyond its time a run ends what it is at, and writes what it found.
GRACE = 90
# What a full server refuses is refused in all honesty (503), and would hide what is not: it never is.
ROOM = {"admission__mode": "off", "session__ice_timeout_ms": 1000}
# What asks for a token does so of whoever has none: of a server that asks nobody, requests without one are good ones.
GUARDED = "negative_data_rejection,missing_required_header,ignored_auth"


def ask(server: Server, folder: Path, seconds: int, *more: str) -> dict:
    """Has schemathesis look for what is wrong, which has to be nothing; what it tells of its work."""
    report = folder / "report.json"
    words = [sys.executable, "-B", "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml"]
    words += ["run", f"{server.url}/v1/openapi.json", "--seed", SEED]
    words += ["--max-time", str(seconds), "--report", "json", "--report-json-path", report, *more]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SACCADE")}
    environment = clean | {"PYTHONPATH": str(HERE), "NO_COLOR": "1"}
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds + GRACE, check=False
    )
    assert done.returncode == 0, done.stdout[-30_000:] + done.stderr[-3_000:]
    said = server.said()
    assert "panicked" not in said, said
    told = json.loads(report.read_text())
    paths = json.load(urllib.request.urlopen(f"{server.url}/v1/openapi.json", timeout=10))["paths"]
    # It does not ask for what it has read already.
    there = sum(method in METHODS for item in paths.values() for method in item) - 1
    assert there > 30 and told["operations"] == told["operations"] | {"total": there, "selected": there, "tested": there, "errored": 0}
    return told


def test_every_answer_is_one_that_the_description_has(tmp_path: Path) -> None:
    rights = ("--can-publish", "--can-view", "--can-configure", "--can-manage-models")
    life = f"{SECONDS + GRACE + 600}s"
    token = command("token", "--sub", "desk", "--ttl", life, *rights, SACCADE_AUTH__SECRET=SECRET).stdout.strip()
    with furnished.server(tmp_path, auth__secret=SECRET, **ROOM) as server:
        told = ask(server, tmp_path, SECONDS, "--header", f"Authorization:Bearer {token}")
    assert {name: told["phases"][name]["status"] for name in PHASES} == dict.fromkeys(PHASES, "success")
    assert told["test_cases"]["generated"] > 15 * SECONDS


def test_a_server_that_asks_for_no_token_answers_the_same(tmp_path: Path) -> None:
    seconds = max(SECONDS // 3, 10)
    with furnished.server(tmp_path, **ROOM) as server:
        told = ask(server, tmp_path, seconds, "--exclude-checks", GUARDED)
    assert told["test_cases"]["generated"] > 15 * seconds
