"""The images of deploy/ without an engine: their Dockerfiles as far as they are read, and a container of namespaces."""

import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import pytest
from server import BINARY, ROOT

DEPLOY = ROOT / "deploy"
RUNTIME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "saccade"
# Seconds that a start may take: models are tried, measured and warmed up.
LIMIT = 90.0

# What an engine does before it starts a container: a root that is read-only, /proc, a few devices, volumes, and no way to
# more rights. `$1` is the root, `$2` a folder that becomes /etc/saccade, `$3` one that becomes /run/secrets.
CONTAINER = """
set -e
root=$1 etc=$2 secrets=$3; shift 3
ip link set lo up
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o nosuid,noexec,mode=755 tmpfs "$root/dev"
for device in null zero random urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
for volume in var/lib/saccade var/cache/saccade; do mkdir -p "$root/$volume"; mount -t tmpfs -o mode=700,uid=65532,gid=65532 tmpfs "$root/$volume"; done
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$etc" "$root/etc/saccade"
mount --bind "$secrets" "$root/run/secrets"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups= "$root" "$@"
"""


def need_containers() -> None:
    """Skips the test where there can be none, but never where everything should be there."""
    done = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], capture_output=True)
    if done.returncode != 0 or os.geteuid() != 0:
        assert os.environ.get("CI") != "true", "this machine lacks the right to make namespaces"
        pytest.skip("this machine lacks the right to make namespaces")


class Dockerfile:
    """The instructions of a Dockerfile's last stage."""

    def __init__(self, path: Path) -> None:
        self.text = path.read_text()
        joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", self.text))
        self.all = [tuple(line.strip().split(maxsplit=1)) for line in joined.splitlines() if line.strip()]
        starts = [at for at, it in enumerate(self.all) if it[0] == "FROM"]
        self.stages = [self.all[at][1] for at in starts]
        self.last = self.all[starts[-1] :]

    def one(self, name: str) -> str:
        found = [it[1] for it in self.last if it[0] == name]
        assert len(found) == 1, f"{name}: {found}"
        return found[0]

    def words(self, name: str) -> list[str]:
        """The words of an instruction that needs no shell."""
        text = self.one(name)
        words = json.loads(text[text.index("[") :])
        assert all(isinstance(it, str) for it in words)
        return words

    def pairs(self, name: str) -> dict[str, str]:
        """What ENV and LABEL say."""
        return dict(it.split("=", 1) for line in self.last if line[0] == name for it in shlex.split(line[1]))


def assemble(out: Path, *more: str | Path) -> subprocess.CompletedProcess:
    """Puts the image together that the Dockerfile for processors copies, with the program of this build."""
    runtime = sorted(RUNTIME.glob("onnxruntime-openvino-*"))
    assert runtime, f"there is no ONNX Runtime in {RUNTIME}: `make setup` fetches it"
    words = [DEPLOY / "image" / "assemble.py", "--binary", BINARY, "--runtime", runtime[-1]]
    words += ["--models", ROOT / "models", "--lock", ROOT / "Cargo.lock", "--out", out, *more]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


class Container:
    """What a Dockerfile's last stage says, with these files as its root, and nothing but itself on its network."""

    def __init__(self, dockerfile: Dockerfile, root: Path, etc: Path, secrets: Path) -> None:
        self.environment = {"PATH": "/usr/bin", **dockerfile.pairs("ENV")}
        self.log = tempfile.TemporaryFile("w+")
        words = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
        words += ["sh", "-c", CONTAINER, "sh", root, etc, secrets, *dockerfile.words("ENTRYPOINT"), *dockerfile.words("CMD")]
        # The host's programs make it ready, by the host's path.
        environment = self.environment | {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        self.process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=self.log, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A change of user takes away what `--kill-child` asked the kernel for: the child is ended itself, and all of its
        # namespace with it.
        while self.process.poll() is None:
            try:
                os.kill(self.pid(), signal.SIGKILL)
            except (ProcessLookupError, FileNotFoundError, IndexError):
                self.process.kill()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                continue
        self.process.stdout.close()
        self.log.close()

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def ready(self) -> str:
        """The line by which the server says that it is ready."""
        if not select.select([self.process.stdout], [], [], LIMIT)[0]:
            raise AssertionError(f"nothing was said within {LIMIT} s:\n{self.said()}")
        line = self.process.stdout.readline()
        assert "ready: " in line, f"{line!r}\n{self.said()}"
        return line

    def pid(self) -> int:
        """The server's process, as the host calls it."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])

    def run(self, *words: str) -> subprocess.CompletedProcess:
        """Runs a program of the image in the container, as its user."""
        enter = ["nsenter", f"--target={self.pid()}", "--all", "--root", "--wd", "--setuid=65532", "--setgid=65532", "--"]
        # `nsenter` is the host's, and found before it enters.
        nsenter = shutil.which("nsenter")
        return subprocess.run([*enter, *words], executable=nsenter, env=self.environment, capture_output=True, text=True, timeout=60)

    def curl(self, *words: str | Path) -> subprocess.CompletedProcess:
        """The host's curl on the container's network."""
        enter = ["nsenter", f"--target={self.pid()}", "--net", "--", "curl", "--silent", "--show-error", "--max-time", "30"]
        return subprocess.run([*enter, *words], capture_output=True, text=True, timeout=60)

    def terminate(self) -> int:
        """Ends it as an engine does; its exit code."""
        os.kill(self.pid(), signal.SIGTERM)
        return self.process.wait(40)
