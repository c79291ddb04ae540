"""Start and end of the process: what operators and their supervisors see."""

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest
from feed import LIMIT
from peer import Peer, Signal, connect
from scene import Scene
from server import Server, command, free_port, serve_words

async def test_a_signal_drains(http: aiohttp.ClientSession, scene: Scene) -> None:
    server = Server(shutdown__grace_ms=3000)
    peer, other = Peer(scene, fps=10), Peer(scene)
    busy, idle = await Signal.open(http, server.ws, peer), await Signal.open(http, server.ws)
    async with peer, other, busy, idle:
        await busy.expect("welcome")
        await idle.expect("welcome")
        await busy.negotiate(await peer.offer(), options={"return": "results"})
        await peer.results.more(2, "results")
        sdp = await other.offer()
        assert server.ready() == 200

        server.terminate()
        # A socket without a session has nothing to wait for; one with a session may go on.
        assert (await idle.expect("draining"))["reconnect_after_ms"] >= 0
        assert await idle.closed() == 1001
        assert (await busy.expect("draining"))["reconnect_after_ms"] >= 0
        async with http.get(f"{server.ops}/readyz") as answer:
            assert answer.status == 503
            assert [it["check"] for it in (await answer.json())["reasons"]] == ["draining"]
        async with http.get(f"{server.ops}/healthz") as answer:
            assert answer.status == 200
        async with http.post(f"{server.url}/v1/offer", json={"sdp": sdp, "type": "offer"}) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "draining")
            assert int(answer.headers["retry-after"]) >= 1
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await Signal.open(http, server.ws)
        assert refused.value.status == 503
        await peer.results.more(3, "results while the server drains")

        assert (await busy.expect("closed"))["reason"] == "draining"
        assert await busy.closed() == 1001
    code, _ = await asyncio.to_thread(server.wait, 10)
    assert code == 0, server.said()


async def test_free_ports_are_said(server: Server, http: aiohttp.ClientSession) -> None:
    assert server.url != server.ops
    for url, path in [(server.url, "/v1/models"), (server.ops, "/readyz")]:
        async with http.get(url + path) as answer:
            assert answer.status == 200
    said = server.said()
    for key, url in [("http.listen", server.url), ("ops.listen", server.ops)]:
        [line] = [it for it in said.splitlines() if "listening" in it and key in it]
        assert url.removeprefix("http://") in line, said


async def test_a_drain_ends_with_the_last_session(http: aiohttp.ClientSession, scene: Scene) -> None:
    server = Server(shutdown__grace_ms=60_000)
    async with Peer(scene, fps=10) as peer, await Signal.open(http, server.ws, peer) as signal:
        await signal.expect("welcome")
        await signal.negotiate(await peer.offer(), options={"return": "results"})
        await peer.results.more(1, "results")
        server.terminate()
        await signal.expect("draining")
        await signal.send("bye")
        assert (await signal.expect("closed"))["reason"] == "bye"
        assert await signal.closed() == 1000
    code, _ = await asyncio.to_thread(server.wait, 10)
    assert code == 0, server.said()


async def test_a_second_signal_ends_at_once(http: aiohttp.ClientSession, scene: Scene) -> None:
    server = Server(shutdown__grace_ms=60_000)
    async with Peer(scene, fps=10) as peer, await Signal.open(http, server.ws, peer) as signal:
        await signal.expect("welcome")
        await signal.negotiate(await peer.offer(), options={"return": "results"})
        await peer.results.more(1, "results")
        server.terminate()
        await signal.expect("draining")
        assert server.process.poll() is None
        server.terminate()
        code, _ = await asyncio.to_thread(server.wait, 5)
        assert code == 0, server.said()


async def test_a_stream_of_results_does_not_hold_up_the_end(http: aiohttp.ClientSession, scene: Scene) -> None:
    server = Server(shutdown__grace_ms=500)
    async with Peer(scene, fps=10) as peer:
        session = await connect(http, server.url, peer, {"return": "results"})
        await peer.results.more(1, "results")
        async with http.get(f"{server.url}/v1/sessions/{session}/results") as answer:
            await answer.content.readline()
            server.terminate()
            async with asyncio.timeout(LIMIT):
                while await answer.content.readline():
                    pass
    code, _ = await asyncio.to_thread(server.wait, 10)
    assert code == 0, server.said()


def test_all_mistakes_are_listed_at_once() -> None:
    words = ["--set", "http.listen=nonsense", "--set", "session.budget_ms=5", "--set", "limits.fps=many"]
    checked = command("serve", "--check", *words)
    assert checked.returncode == 64, checked
    for key, value in [("http.listen", "nonsense"), ("session.budget_ms", "5"), ("limits.fps", "many")]:
        [line] = [it for it in checked.stderr.splitlines() if key in it]
        assert value in line, checked.stderr
    assert "10" in checked.stderr and "5000" in checked.stderr, "the legal range"
    # What --check refuses, serve refuses, too.
    assert command("serve", *words).returncode == 64


def test_every_layer_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "saccade.toml"
    file.write_text("[http]\nlissten = 1\n[limits]\nwidth = 0\n", encoding="utf-8")
    checked = command("serve", "--check", "--config", str(file), SACCADE_HW__DECODE="maybe", SACCADE_NONE__SUCH="1")
    assert checked.returncode == 64, checked
    for key in ("http.lissten", "limits.width", "hw.decode", "SACCADE_NONE__SUCH"):
        assert key in checked.stderr, checked.stderr
    assert command("serve", "--check").returncode == 0
    assert command("serve", "--check", "--config", str(tmp_path / "none.toml")).returncode == 64


def test_the_open_world_needs_authentication() -> None:
    open_to_all = command("serve", "--check", "--listen", "0.0.0.0:8080")
    assert open_to_all.returncode == 64
    assert "--insecure" in open_to_all.stderr and "auth" in open_to_all.stderr
    assert command("serve", "--check", "--listen", "0.0.0.0:8080", "--insecure").returncode == 0
    assert command("serve", "--check", "--listen", "0.0.0.0:8080", SACCADE_AUTH__SECRET="s" * 32).returncode == 0


@pytest.mark.parametrize("key", ["http.listen", "ops.listen"])
def test_a_taken_port_is_said(key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = (port, free_port()) if key == "http.listen" else (free_port(), port)
        started = command(*serve_words(*ports, {}))
    assert started.returncode == 69, started
    assert key in started.stderr and str(port) in started.stderr, started.stderr


@pytest.mark.parametrize("environment", [{"ORT_DYLIB_PATH": "/nonexistent/libonnxruntime.so"}, {"ORT_DYLIB_PATH": ""}])
def test_without_onnx_runtime_it_says_what_to_do(tmp_path: Path, environment: dict[str, str]) -> None:
    environment = environment | {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    started = command(*serve_words(0, free_port(), {}), **environment)
    assert started.returncode == 69, started
    assert "ONNX Runtime" in started.stderr and "make setup" in started.stderr, started.stderr
    assert environment["ORT_DYLIB_PATH"] in started.stderr, "where it looked"


def test_an_unknown_default_model_is_said() -> None:
    started = command(*serve_words(0, free_port(), {"models.default": "dragon"}))
    assert started.returncode == 64, started
    assert "models.default" in started.stderr and "dragon" in started.stderr, started.stderr
