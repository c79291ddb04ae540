"""Rates, slow clients, proxies and TLS of the public listener."""

import asyncio
import datetime
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from peer import Peer, Signal, connect
from scene import Scene
from server import Server, command

RATE = {"rate__loopback": "true", "rate__requests_per_s": 1, "rate__request_burst": 3, "shutdown__grace_ms": 500}


async def statuses(server: Server, forwarded: list[str | None]) -> list[int]:
    """What requests get that say they come from these addresses."""
    async with aiohttp.ClientSession() as http:
        found = []
        for name in forwarded:
            headers = {} if name is None else {"x-forwarded-for": name}
            async with http.get(f"{server.url}/v1/models", headers=headers) as answer:
                found.append(answer.status)
                if answer.status == 429:
                    assert (await answer.json(content_type=None))["code"] == "rate_limited"
                    assert int(answer.headers["retry-after"]) >= 1
        return found


async def test_requests_have_a_rate_that_other_names_do_not_lift() -> None:
    server = Server(**RATE)
    try:
        assert await statuses(server, [f"198.51.100.{number}" for number in range(5)]) == [200, 200, 200, 429, 429]
        assert "198.51.100" not in server.said() and "127.0.0.1 " not in server.said()
    finally:
        server.stop()


async def test_a_trusted_proxy_tells_who_asks() -> None:
    server = Server(http__trusted_proxies="127.0.0.0/8, 10.0.0.0/8", **RATE)
    try:
        assert await statuses(server, [f"198.51.100.{number}" for number in range(9)]) == [200] * 9
        # What stands left of the right-most stranger is the stranger's own word.
        spoofed = [f"192.0.2.{number}, 203.0.113.1, 10.1.1.1" for number in range(5)]
        assert await statuses(server, spoofed) == [200, 200, 200, 429, 429]
    finally:
        server.stop()


async def test_loopback_has_no_rate_unless_it_is_asked_for(server: Server) -> None:
    async with aiohttp.ClientSession() as http:
        for _ in range(500):
            async with http.get(f"{server.url}/favicon.svg") as answer:
                assert answer.status == 200


async def test_slow_clients_are_given_up(server: Server, witness: Peer) -> None:
    host, port = server.url.removeprefix("http://").split(":")

    async def drip(head: bytes, limit: float) -> bytes:
        """Sends a head, then a byte a second, and gives what came back before the end."""
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head)

        async def more() -> None:
            while True:
                await asyncio.sleep(1)
                writer.write(b"x")

        dripping = asyncio.ensure_future(more())
        try:
            async with asyncio.timeout(limit):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            dripping.cancel()
            writer.close()

    post = b"POST /v1/offer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
    start = time.monotonic()
    nothing, half, body = await asyncio.gather(
        drip(b"", 25), drip(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ", 25), drip(post, 30)
    )
    assert time.monotonic() - start < 30
    for answer in (nothing, half):
        assert answer == b"" or answer.startswith((b"HTTP/1.1 408", b"HTTP/1.1 400")), answer
    assert body.startswith(b"HTTP/1.1 408") and b"bad_request" in body
    await witness.results.more(2, "results of the healthy session")


async def test_one_address_has_so_many_connections() -> None:
    server = Server(limits__connections_per_address=3, rate__loopback="true", shutdown__grace_ms=500)
    host, port = server.url.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port)), timeout=10) for _ in range(3)]
    try:
        with socket.create_connection((host, int(port)), timeout=10) as one_more:
            try:
                assert one_more.recv(1) == b""
            except ConnectionResetError:
                pass
        async with aiohttp.ClientSession() as http, http.get(f"{server.ops}/metrics") as answer:
            assert 'saccade_connections_refused_total{reason="too_many"} 1' in await answer.text()
    finally:
        for one in held:
            one.close()
        server.stop()


@pytest.mark.parametrize("which", ["subject", "address"])
async def test_a_subject_and_an_address_have_so_many_sessions(http: aiohttp.ClientSession, scene: Scene, which: str) -> None:
    secret = "a secret of at least thirty-two bytes"
    server = Server(auth__secret=secret, shutdown__grace_ms=500, **{f"limits__sessions_per_{which}": 1})

    def of(sub: str) -> dict[str, str]:
        made = command("token", "--sub", sub, "--can-publish", SACCADE_AUTH__SECRET=secret)
        return {"authorization": f"Bearer {made.stdout.strip()}"}

    try:
        async with Peer(scene) as peer, Peer(scene) as late, Peer(scene) as last:
            camera = of("camera")
            session = await connect(http, server.url, peer, {"return": "results"}, headers=camera)
            # Either the subject is another one, or the address is the same.
            for sub, status in (("camera", 429), ("other", 429 if which == "address" else 200)):
                body = {"sdp": await late.offer(), "type": "offer"}
                async with http.post(f"{server.url}/v1/offer", json=body, headers=of(sub)) as answer:
                    assert answer.status == status
                    if status == 429:
                        assert (await answer.json(content_type=None))["code"] == "capacity"
            async with http.delete(f"{server.url}/v1/sessions/{session}", headers=camera) as answer:
                assert answer.status == 200
            if which == "address":
                await connect(http, server.url, last, {"return": "results"}, headers=of("other"))
    finally:
        server.stop()


def certify(folder: Path) -> ssl.SSLContext:
    """Puts a new certificate for this machine into place; gives what a client needs to trust it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(names, critical=False)
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for file, data in (("key.pem", key.private_bytes(*kind)), ("cert.pem", certificate)):
        (folder / "next").write_bytes(data)
        (folder / "next").rename(folder / file)
    return ssl.create_default_context(cadata=certificate.decode())


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[Server, Path, ssl.SSLContext]]:
    context = certify(tmp_path)
    server = Server(
        http__tls_cert=tmp_path / "cert.pem", http__tls_key=tmp_path / "key.pem", shutdown__grace_ms=500
    )
    yield server, tmp_path, context
    server.stop()


async def test_https_and_wss_with_a_certificate_that_changes(http: aiohttp.ClientSession, secure, scene: Scene) -> None:
    server, folder, old = secure
    assert server.url.startswith("https://")
    url, ws = (it.replace("127.0.0.1", "localhost") for it in (server.url, server.ws))
    async with http.get(f"{url}/", ssl=old) as answer:
        assert answer.status == 200 and "max-age" in answer.headers["strict-transport-security"]
    async with Peer(scene) as peer, await Signal.open(http, ws, peer, ssl=old) as signal:
        await signal.expect("welcome")
        await signal.negotiate(await peer.offer(), options={"return": "results"})
        await peer.results.more(2, "results")

        new = certify(folder)
        async with asyncio.timeout(10):
            while not await takes(url, new):
                await asyncio.sleep(0.1)
        assert not await takes(url, old)
        # Who was connected goes on.
        await signal.send("configure", options={"score_threshold": 0.4})
        assert (await signal.expect("configured"))["options"]["score_threshold"] == pytest.approx(0.4)
        await peer.results.more(2, "results")
        await signal.send("bye")
        await signal.expect("closed")


async def takes(url: str, context: ssl.SSLContext) -> bool:
    """Whether a new connection shows a certificate that this client trusts."""
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{url}/v1/models", ssl=context) as answer:
            return answer.status == 200
    except aiohttp.ClientConnectorCertificateError:
        return False


async def test_old_versions_of_tls_and_plain_text_are_refused(secure) -> None:
    server, _, context = secure
    plain = server.url.replace("https", "http")
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"{plain}/")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert not await connects(server, context)
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    assert await connects(server, context)


async def connects(server: Server, context: ssl.SSLContext) -> bool:
    try:
        port = int(server.url.rsplit(":", 1)[1])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    except (ssl.SSLError, ConnectionError):
        return False
    writer.close()
    return True


def test_what_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    certify(tmp_path)
    both = ["--set", f"http.tls_cert={tmp_path / 'cert.pem'}", "--set", f"http.tls_key={tmp_path / 'key.pem'}"]
    assert command("serve", "--check", *both).returncode == 0
    alone = command("serve", "--check", *both[:2])
    assert alone.returncode == 64 and "http.tls_key" in alone.stderr
    other = tmp_path / "other"
    other.mkdir()
    certify(other)
    mixed = command("serve", "--check", *both[:2], "--set", f"http.tls_key={other / 'key.pem'}")
    assert mixed.returncode == 64 and "together" in mixed.stderr
