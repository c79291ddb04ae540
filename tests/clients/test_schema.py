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
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
]


def ask(server: Server, folder: Path, seconds: int, checks: list[str], *more: str) -> dict:
    """Has schemathesis look for what is wrong, which has to be nothing; what it tells of its work."""
    report = folder / "report.json"
    words = [sys.executable, "-B", "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml"]
    words += ["run", f"{server.url}/v1/openapi.json", "--checks", ",".join(checks), "--seed", SEED]
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
    there = sum(method in METHODS for item in paths.values() for method in item)
    assert there > 30 and told["operations"] == told["operations"] | {"total": there, "selected": there, "tested": there, "errored": 0}
    return told


def test_every_answer_is_one_that_the_description_has(tmp_path: Path) -> None:
    with furnished.server(tmp_path, **ROOM) as server:
        told = ask(server, tmp_path, SECONDS, CHECKS)
    assert {name: phase["status"] for name, phase in told["phases"].items()} == dict.fromkeys(PHASES, "success")
    assert told["test_cases"]["generated"] > 20 * SECONDS


def test_no_operation_that_asks_for_a_token_goes_without(tmp_path: Path) -> None:
    rights = ("--can-publish", "--can-view", "--can-configure", "--can-manage-models")
    token = command("token", "--sub", "desk", "--ttl", "1h", *rights, SACCADE_AUTH__SECRET=SECRET).stdout.strip()
    with furnished.server(tmp_path, auth__secret=SECRET, **ROOM) as server:
        seconds = max(SECONDS // 3, 10)
        told = ask(server, tmp_path, seconds, ["not_a_server_error", "status_code_conformance", "ignored_auth"], "--header", f"Authorization:Bearer {token}")
    assert told["test_cases"]["generated"] > 10 * seconds
