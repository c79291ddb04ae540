"""The Python program of the protocol page, as it is printed there."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scene import FOLDER
from server import ROOT, Server, command

SECRET = "a secret of at least thirty-two bytes"
# Seconds from its start to its hundredth result.
LIMIT = 60


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    server = Server(auth__secret=SECRET, shutdown__grace_ms=500)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = (ROOT / "signaling" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    path = tmp_path_factory.mktemp("page") / "publish.py"
    path.write_text(code, encoding="utf-8")
    return path


async def run(program: Path, server: Server, **environment: str) -> tuple[int, list[str], str]:
    """Exit code, lines, and what it complained of."""
    words = [sys.executable, "-B", str(program), server.ws, str(FOLDER / "scene.mp4")]
    clean = {name: value for name, value in os.environ.items() if name != "SACCADE_TOKEN"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, env=clean | environment, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(LIMIT):
            out, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode().splitlines(), complaints.decode()


def check(code: int, lines: list[str], complaints: str) -> None:
    assert code == 0, complaints
    assert len(lines) == 100
    frames = [re.fullmatch(r"frame (\d+): (.+)", line) for line in lines]
    assert all(frames), lines
    assert len({frame[1] for frame in frames}) == 100, "each frame once"
    boxes = re.findall(r"head (?:0\.\d+|1\.0) at \[[\d.]+(?:, [\d.]+){3}\]", "\n".join(lines))
    assert len(boxes) > 100, "the scene has people in it"


async def test_it_publishes_a_file_and_prints_what_is_found(program: Path, server: Server) -> None:
    check(*await run(program, server))


async def test_it_takes_a_token_and_says_when_one_is_missing(program: Path, guarded: Server) -> None:
    token = command("token", "--can-publish", SACCADE_AUTH__SECRET=SECRET)
    assert token.returncode == 0, token.stderr
    check(*await run(program, guarded, SACCADE_TOKEN=token.stdout.strip()))
    code, lines, complaints = await run(program, guarded, SACCADE_TOKEN="")
    assert code == 1 and not lines
    assert complaints.startswith("unauthorized: "), complaints
