"""What the tests share: one server, the scene, one session that has to go on whatever others do."""

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from peer import Peer, connect
from scene import Scene
from server import BINARY, SHOP, Server


def pytest_sessionstart() -> None:
    if not BINARY.exists():
        raise pytest.UsageError(f"there is no {BINARY}: build it with `cargo build`, or set SACCADE_BIN")


@pytest.fixture(scope="session")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server(http__allowed_origins=SHOP, shutdown__grace_ms=1000)
    yield server
    server.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture(scope="module")
async def witness(server: Server, scene: Scene) -> AsyncIterator[Peer]:
    """A healthy session. Tests check with its `results.more` that it still gets results."""
    async with aiohttp.ClientSession() as http, Peer(scene, "VP8", fps=10) as peer:
        await connect(http, server.url, peer, {"return": "results"})
        await peer.results.more(1, "results of the healthy session")
        yield peer
