"""`saccade health`, by which a container or a script learns whether a server is ready."""

import aiohttp
from peer import Peer, connect
from scene import Scene
from server import Server, command, free_port


def asked(url: str) -> tuple[int, str, str]:
    # A proxy for everything else is none for this.
    done = command("health", "--url", url, "--timeout", "10", http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
    return done.returncode, done.stdout, done.stderr


async def test_ready_then_draining_then_gone(http: aiohttp.ClientSession, scene: Scene) -> None:
    server = Server(shutdown__grace_ms=8000)
    try:
        assert asked(f"{server.ops}/readyz") == (0, "ready\n", "")
        async with Peer(scene, "VP8") as peer:
            await connect(http, server.url, peer, {"return": "results"})
            await peer.results.more(1, "results")
            server.terminate()
            await peer.results.more(2, "results while the server drains")
            code, said, why = asked(f"{server.ops}/readyz")
            assert (code, said) == (69, "")
            assert why.startswith("not ready: ") and "drain" in why and why.count("\n") == 1
    finally:
        server.stop()
    code, _, why = asked(f"{server.ops}/readyz")
    assert code == 69 and "refused" in why


def test_another_server_is_no_ready_one(server: Server) -> None:
    code, _, why = asked(f"{server.url}/readyz")
    assert code == 69 and "404" in why and "ops.listen" in why


def test_nobody_there_and_no_address() -> None:
    assert asked(f"http://127.0.0.1:{free_port()}/readyz")[0] == 69
    code, _, why = asked("127.0.0.1:9180")
    assert code == 64 and "http://" in why
