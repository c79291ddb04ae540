"""Networks of network namespaces, which only the test that made them sees."""

import itertools
import os
import shutil
import subprocess
from typing import Self

import pytest

_numbers = itertools.count()


def lacking() -> str | None:
    """What keeps this machine from making network namespaces."""
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"the program {program}"
    name = f"sct{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return "the right to make network namespaces"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


def need_namespaces() -> None:
    """Skips the test where there can be none, but never where everything should be there."""
    missing = lacking()
    if missing is not None:
        assert os.environ.get("CI") != "true", f"this machine lacks {missing}"
        pytest.skip(f"this machine lacks {missing}")


class Network:
    """A client's and a server's namespace with one cable between them."""

    CLIENT, SERVER = "10.77.1.2", "10.77.1.1"

    def __init__(self) -> None:
        stem = f"sct{os.getpid()}x{next(_numbers)}"
        self.names = {"client": f"{stem}c", "server": f"{stem}s"}

    def __enter__(self) -> Self:
        try:
            for name in self.names.values():
                run("ip", "netns", "add", name)
                run("ip", "-n", name, "link", "set", "lo", "up")
            client, server = self.names.values()
            cable = ("ip", "link", "add", "wire", "netns", client, "type", "veth", "peer", "name", "wire", "netns", server)
            run(*cable)
            for name, address in ((client, self.CLIENT), (server, self.SERVER)):
                run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "wire")
                run("ip", "-n", name, "link", "set", "wire", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def within(self, side: str) -> tuple[str, ...]:
        """Words before a command that run it on this side."""
        return ("ip", "netns", "exec", self.names[side])

    def drop(self, *what: str) -> None:
        """Loses all packets of these kinds that come out of the cable, on either side."""
        rules = "\n".join(f'iifname "wire" {it} drop' for it in what)
        chain = f"chain input {{\ntype filter hook input priority 0\n{rules}\n}}"
        for name in self.names.values():
            run("ip", "netns", "exec", name, "nft", "-f", "-", text=f"table inet test {{\n{chain}\n}}\n")


def run(*words: str, text: str | None = None) -> None:
    done = subprocess.run(words, input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
