"""The real binary as a child process, on free ports."""

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "saccade"
BINARY = Path(os.environ.get("SACCADE_BIN") or os.environ.get("SACCADE_TEST_SERVER") or BUILT).resolve()
# Seconds that a start may take: models load and warm up.
START_LIMIT = 60.0
SHOP = "https://shop.example"


def command(
    *words: str, limit: float = 30, within: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess:
    """Runs a command of the binary to its end; `within` are words to put before it."""
    return subprocess.run(
        [*within, BINARY, *words], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=limit
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def serve_words(http: int, ops: int, settings: dict[str, object], host: str = "127.0.0.1") -> list[str]:
    defaults = {"models.dir": ROOT / "models", "models.default": "scene-blobs", "models.routes_file": "off"}
    # Nothing of the tests is kept in the user's folder.
    defaults |= {"session.budget_ms": 2000, "media.port": 0, "store.url": "off"}
    words = ["serve", "--listen", f"{host}:{http}", "--ops-listen", f"127.0.0.1:{ops}"]
    for key, value in (defaults | settings).items():
        words += ["--set", f"{key}={value}"]
    return words


class Server:
    """A server that is ready."""

    def __init__(self, within: tuple[str, ...] = (), host: str = "127.0.0.1", **settings: object) -> None:
        settings = {key.replace("__", "."): value for key, value in settings.items()}
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*within, BINARY, *serve_words(0, 0, settings, host)], cwd=ROOT, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        # The one line that it prints says that it is ready; the pipe ends if it gives up.
        watchdog = subprocess.Popen(["sh", "-c", f"sleep {START_LIMIT}; kill -KILL {self.process.pid}"])
        line = self.process.stdout.readline()
        watchdog.kill()
        watchdog.wait()
        ready = re.search(r"ready: (https?://\S+)/ .*metrics: (http://\S+)/", line)
        if not ready:
            self.process.kill()
            raise AssertionError(f"the server did not start: {line!r}\n{self.said()}")
        self.url, self.ops = ready.groups()
        self.ws = self.url.replace("http", "ws", 1) + "/v1/signal"

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def ready(self) -> int:
        """Status of `/readyz`."""
        try:
            with urllib.request.urlopen(f"{self.ops}/readyz", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, limit: float) -> tuple[int, float]:
        """Its exit code and the seconds until it came; fails when it does not within `limit`."""
        start = time.monotonic()
        try:
            code = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the server did not end within {limit} s\n{self.said()}") from None
        return code, time.monotonic() - start

    def stop(self) -> None:
        """Ends it as an operator would, and checks that nothing went wrong in it."""
        if self.process.poll() is None:
            self.terminate()
        code, _ = self.wait(15)
        said = self.said()
        assert code == 0, said
        assert "panicked" not in said and " ERROR saccade" not in said, said
