"""Every request of docs/API.md as it is printed there, and what it says of the answer."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import furnished
import pytest
from scene import Scene
from server import BINARY, ROOT, Server

PAGE = ROOT / "docs" / "API.md"
OPENAPI = ROOT / "docs" / "openapi.json"
SECRET = "a secret of at least thirty-two bytes"
# Seconds that one block may take; streams of events wait for what the scene shows.
LIMIT = 60
# Words of an answer that are its meaning, and not just of one moment.
STABLE = {"type", "code", "status", "state", "task", "datatype", "platform"}
# Options of curl that have a word behind them.
WITH_WORD = {"-H", "-F", "-o", "-w", "-X", "--json", "--data-binary", "--max-time", "--output"}
POSTS = {"-F", "--json", "--data-binary"}


@dataclass
class Example:
    """A block of commands, and the blocks that show what comes of it."""

    line: int
    commands: str
    shown: list[tuple[str, str]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """That of the answer, where it is shown; else one of success."""
        lines = [text.split(maxsplit=2) for kind, text in self.shown if kind == "http"]
        return int(lines[0][1]) if lines else 200


def examples(page: str) -> list[Example]:
    found: list[Example] = []
    for block in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        kind, text = block.groups()
        if kind in ("sh", "bash"):
            found.append(Example(page[: block.start()].count("\n") + 2, text))
        else:
            found[-1].shown.append((kind, text))
    return found


EXAMPLES = examples(PAGE.read_text(encoding="utf-8"))


class Shell:
    """A shell whose variables and files stay from one block to the next."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.kept = folder, folder / ".variables"
        tools = folder / ".tools"
        tools.mkdir()
        (tools / "saccade").symlink_to(BINARY)
        (tools / "python3").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -B "$@"\n')
        (tools / "python3").chmod(0o755)
        # What the page leaves out for the sake of reading.
        (folder / ".curlrc").write_text("silent\nshow-error\nfail-with-body\nmax-time = 30\n")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SACCADE")}
        self.environment = clean | {"HOME": str(folder), "PATH": f"{tools}:{os.environ['PATH']}"} | variables

    def run(self, commands: str) -> subprocess.CompletedProcess:
        before = f"set -eua; [ ! -e {self.kept} ] || . {self.kept}\n"
        script = f"{before}trap 'export -p > {self.kept}' EXIT\n{commands}"
        return subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, capture_output=True, timeout=LIMIT
        )


@contextmanager
def kept(server: Server) -> Iterator[None]:
    """Waits until the history has figures, which are written when a session ends."""
    with furnished.publisher(server):
        pass
    limit = time.monotonic() + 30
    while not json.load(urllib.request.urlopen(f"{server.url}/v1/stats", timeout=5))["points"]:
        assert time.monotonic() < limit, "no figures were kept"
    yield


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, scene: Scene) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("docs")
    with furnished.server(folder) as server, kept(server), furnished.publisher(server):
        secured = Server(auth__secret=SECRET, shutdown__grace_ms=500)
        try:
            there = {"SACCADE": server.url, "OPS": server.ops, "SECURED": secured.url, "SACCADE_AUTH__SECRET": SECRET}
            (folder / "photo.jpg").write_bytes(furnished.picture(scene, ".jpg"))
            yield Shell(folder, **there)
        finally:
            secured.stop()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda it: f"line {it.line}")
def test_an_example_works_as_it_is_printed(shell: Shell, example: Example) -> None:
    done = shell.run(example.commands)
    said = done.stdout.decode("utf-8", "replace")
    # What curl says of an answer that is an error (`--fail-with-body`).
    assert done.returncode == (22 if example.status >= 400 else 0), (said, done.stderr.decode())
    for kind, text in example.shown:
        match kind:
            case "http":
                check_head(text, said)
            case "json":
                agree(json.loads(text), json.loads(body_of(said)), "the answer")
            case "text":
                for line in text.splitlines():
                    assert re.search(f"^{pattern(line)}", said, re.MULTILINE), f"there is no line {line!r} in {said[:2000]}"
            case _:
                pytest.fail(f"nothing is known of blocks of {kind}")


def pattern(text: str) -> str:
    """An expression for what has anything where the text has dots."""
    return re.escape(text).replace("…", ".*")


def body_of(said: str) -> str:
    """What follows the head, or the first event of a stream."""
    if said.startswith("HTTP/"):
        said = said.partition("\r\n\r\n")[2]
    return said.removeprefix("data:").split("\n", 1)[0] if said.startswith("data:") else said


def check_head(text: str, said: str) -> None:
    """Each answer has the status and the headers that are shown, and the last one what is shown of its body."""
    shown, _, body = text.partition("\n\n")
    status, *headers = shown.splitlines()
    heads = re.findall(r"^HTTP/.*?^\r$", said, re.DOTALL | re.MULTILINE)
    assert heads, said
    for head in heads:
        got, *rest = head.split("\r\n")
        assert got.split()[1] == status.split()[1], (status, head)
        for header in headers:
            assert any(re.fullmatch(pattern(header), it, re.IGNORECASE) for it in rest), f"there is no {header!r} in {head}"
    if body:
        agree(json.loads(body), json.loads(body_of(said)), "the answer")


def agree(shown: Any, got: Any, where: str) -> None:
    """What is shown is there, with the same kind of value; there may be more."""
    if isinstance(shown, dict):
        assert isinstance(got, dict), f"{where} is {got!r}"
        for key, value in shown.items():
            assert key in got, f"{where} has no {key}: {got}"
            agree(value, got[key], f"{where}.{key}")
            if key in STABLE and isinstance(value, str | int):
                assert re.fullmatch(pattern(str(value)), str(got[key])), f"{where}.{key} is {got[key]!r}"
    elif isinstance(shown, list):
        assert isinstance(got, list), f"{where} is {got!r}"
        for number, entry in enumerate(shown):
            failures = []
            for candidate in got:
                try:
                    agree(entry, candidate, f"{where}[{number}]")
                    break
                except AssertionError as failure:
                    failures.append(str(failure))
            else:
                pytest.fail(f"no entry of {where} is like {entry}: {failures}")
    elif shown is not None and got is not None:
        number = (int, float)
        same = isinstance(shown, bool) == isinstance(got, bool)
        same &= isinstance(got, number) if isinstance(shown, number) else isinstance(got, type(shown))
        assert same, f"{where} is {got!r}, not like {shown!r}"


def test_what_is_not_there_is_missed() -> None:
    """The comparison can fail."""
    agree({"a": [{"b": 1, "type": "zone_…"}]}, {"a": [{}, {"b": 2.5, "type": "zone_left", "c": 3}]}, "it")
    for shown, got in [({"a": 1}, {}), ([1], []), ([{"a": 1}], [{"a": "1"}]), ({"state": "x"}, {"state": "y"}), (True, 1), ("1", 1)]:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            agree(shown, got, "it")


# --- the page and the API have the same routes ---


def requests_of(commands: str) -> Iterator[tuple[str, str]]:
    """Method and path of each request that curl makes, and of sockets."""
    yield from (("GET", path) for path in re.findall(r'ws_connect\(os\.environ\["SACCADE"\] \+ "([^"]+)"', commands))
    commands = re.sub(r"<<'(\w+)'\n.*?^\1$", "", commands, flags=re.DOTALL | re.MULTILINE)
    for call in re.findall(r"\bcurl ((?:[^\n\\]|\\\n)*)", commands):
        lexer = shlex.shlex(call, posix=True, punctuation_chars="|)")
        lexer.whitespace_split = True
        method, words = "GET", iter(lexer)
        for word in words:
            if word in ("|", "||", ")"):
                break
            if word in WITH_WORD:
                value = next(words)
                if word == "-X":
                    method = value
                elif word in POSTS and method == "GET":
                    method = "POST"
            elif place := re.match(r"\$(?:SACCADE|OPS|SECURED)(/[^?]*)", word):
                yield method, place[1]


def asked() -> set[tuple[str, str]]:
    return {request for example in EXAMPLES for request in requests_of(example.commands)}


def is_of(path: str, template: str) -> bool:
    return re.fullmatch(re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(template)), path) is not None


def test_every_operation_has_an_example_and_every_example_an_operation() -> None:
    paths = json.loads(OPENAPI.read_text(encoding="utf-8"))["paths"]
    methods = ("get", "put", "post", "patch", "delete")
    operations = {(method.upper(), path) for path, item in paths.items() for method in methods if method in item}
    # An older name of the same, for clients that know no other.
    operations.add(("POST", "/offer"))
    operations |= {("GET", path) for path in ("/healthz", "/readyz", "/metrics")}
    requests = asked()
    exact = {(method, path) for method, path in requests if (method, path) in operations}

    def operation(request: tuple[str, str]) -> tuple[str, str] | None:
        if request in exact:
            return request
        return next((it for it in operations if it[0] == request[0] and is_of(request[1], it[1])), None)

    assert {request for request in requests if operation(request) is None} == set(), "that the API does not have"
    assert operations - {operation(request) for request in requests} == set(), "without an example"
