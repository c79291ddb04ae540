"""Tokens: who may do what, over HTTP and over the WebSocket."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from peer import Peer, Signal, connect
from scene import Scene
from server import Server, command

SECRET = "a secret of at least thirty-two bytes"
AUDIENCE = "saccade"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    server = Server(auth__secret=SECRET, auth__audience=AUDIENCE, shutdown__grace_ms=500)
    yield server
    server.stop()


def made(*words: str) -> str:
    """A token as `saccade token` makes it."""
    done = command("token", "--audience", AUDIENCE, *words, SACCADE_AUTH__SECRET=SECRET)
    assert done.returncode == 0, done
    return done.stdout.strip()


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: dict, secret: str = SECRET, algorithm: str = "HS256") -> str:
    """A token (RFC 7515) made by hand."""

    text = ".".join(encode(json.dumps(it).encode()) for it in ({"alg": algorithm, "typ": "JWT"}, claims))
    hashes = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}
    if algorithm not in hashes:
        return f"{text}."
    return f"{text}.{encode(hmac.new(secret.encode(), text.encode(), hashes[algorithm]).digest())}"


def claims(seconds: float = 60, **more: object) -> dict:
    return {"exp": int(time.time() + seconds), "aud": AUDIENCE, "can_publish": True, "can_view": True} | more


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


BAD = {
    "expired": signed(claims(-60)),
    "without an end": signed({"aud": AUDIENCE, "can_publish": True, "can_view": True}),
    "forged": signed(claims(), secret="another secret of thirty-two bytes"),
    "for another audience": signed(claims(aud="elsewhere")),
    "without audience": signed({"exp": int(time.time() + 60), "can_publish": True, "can_view": True}),
    "not yet valid": signed(claims(3600, nbf=int(time.time() + 1800))),
    "unsigned": signed(claims(), algorithm="none"),
    "of another algorithm": signed(claims(), algorithm="HS512"),
    "no API key": "sk_" + "0" * 64,
    "nonsense": "nonsense",
    "empty": "",
}


async def test_a_good_token_works_over_http(http: aiohttp.ClientSession, guarded: Server, scene: Scene) -> None:
    camera, guard = made("--sub", "cam", "--can-publish"), made("--sub", "guard", "--can-view")
    async with Peer(scene) as peer:
        session = await connect(http, guarded.url, peer, {"return": "results"}, headers=bearer(camera))
        await peer.results.more(2, "results")
        url = f"{guarded.url}/v1/sessions/{session}"
        for who, status in [(camera, 403), (guard, 200)]:
            async with http.get(url, headers=bearer(who)) as answer:
                assert answer.status == status
        stranger = made("--sub", "stranger", "--can-publish")
        for who, status in [(guard, 403), (stranger, 403), (camera, 200), (camera, 404)]:
            async with http.delete(url, headers=bearer(who)) as answer:
                assert answer.status == status


@pytest.mark.parametrize("kind", [None, *BAD])
async def test_other_tokens_are_refused(http: aiohttp.ClientSession, guarded: Server, kind: str | None) -> None:
    headers = {} if kind is None else bearer(BAD[kind])
    offer = {"json": {"sdp": "v=0", "type": "offer"}, "headers": headers}
    for answer in [
        await http.post(f"{guarded.url}/v1/offer", **offer),
        await http.post(f"{guarded.url}/offer", **offer),
        await http.get(f"{guarded.url}/v1/sessions", headers=headers),
        await http.get(f"{guarded.url}/v1/sessions/{'0' * 32}", headers=headers),
        await http.get(f"{guarded.url}/v1/sessions/{'0' * 32}/results", headers=headers),
        await http.delete(f"{guarded.url}/v1/sessions/{'0' * 32}", headers=headers),
        await http.get(f"{guarded.url}/v1/models", headers=headers),
    ]:
        async with answer:
            assert answer.status == 401, answer.url
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert (await answer.json(content_type=None))["code"] == "unauthorized"
    if kind is not None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await Signal.open(http, guarded.ws, headers=headers)
        assert refused.value.status == 401


async def test_a_token_has_to_be_a_bearer(http: aiohttp.ClientSession, guarded: Server) -> None:
    good = signed(claims())
    for value, status in [(f"bearer {good}", 200), (f"Basic {good}", 401), (good, 401)]:
        async with http.get(f"{guarded.url}/v1/sessions", headers={"authorization": value}) as answer:
            assert answer.status == status, value
    for path in ("/v1/sessions", f"/v1/sessions/{'0' * 32}", "/v1/models", "/v1/routes"):
        async with http.get(f"{guarded.url}{path}?token={good}&access_token={good}") as answer:
            assert answer.status == 401, path


async def test_who_may_not_publish_is_refused(http: aiohttp.ClientSession, guarded: Server) -> None:
    viewer = made("--can-view")
    body = {"sdp": "v=0", "type": "offer"}
    async with http.post(f"{guarded.url}/v1/offer", json=body, headers=bearer(viewer)) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (403, "forbidden")
    async with await Signal.open(http, guarded.ws) as signal:
        await signal.send("auth", token=viewer)
        await signal.expect("welcome")
        await signal.send("offer", sdp="v=0")
        await signal.error("forbidden", fatal=True)
        assert await signal.closed() == 4403


async def test_a_good_token_works_over_the_socket(http: aiohttp.ClientSession, guarded: Server, scene: Scene) -> None:
    token = made("--sub", "cam", "--can-publish")
    for headers in (None, bearer(token)):
        async with Peer(scene) as peer, await Signal.open(http, guarded.ws, peer, headers=headers) as signal:
            if headers is None:
                await signal.send("auth", token=token)
            await signal.expect("welcome")
            await signal.negotiate(await peer.offer(), options={"return": "results"})
            await peer.results.more(2, "results")
            await signal.send("configure", options={"budget_ms": 1500})
            await signal.error("forbidden", fatal=False)
            await signal.send("bye")
            await signal.expect("closed")
            assert await signal.closed() == 1000


async def test_a_session_of_somebody_else_cannot_be_taken_over(http, guarded: Server, scene: Scene) -> None:
    cam, thief = made("--sub", "cam", "--can-publish"), made("--sub", "thief", "--can-publish")
    async with Peer(scene) as peer, await Signal.open(http, guarded.ws, peer, headers=bearer(cam)) as signal:
        await signal.expect("welcome")
        answer = await signal.negotiate(await peer.offer(), options={"return": "results"})
        async with await Signal.open(http, guarded.ws, headers=bearer(thief)) as other:
            await other.expect("welcome")
            await other.send("offer", sdp="v=0", session_id=answer["session_id"])
            await other.error("not_found", fatal=False)
        await peer.results.more(2, "results")
        await signal.send("bye")
        await signal.expect("closed")


async def test_a_socket_without_a_token_closes_with_4401(http: aiohttp.ClientSession, guarded: Server) -> None:
    async def silent() -> None:
        start = time.monotonic()
        async with await Signal.open(http, guarded.ws) as signal:
            await signal.error("unauthorized", fatal=True)
            assert await signal.closed() == 4401
            assert 4.5 < time.monotonic() - start < 10

    async def wrong(**message: object) -> None:
        async with await Signal.open(http, guarded.ws) as signal:
            await signal.send(**message)
            await signal.error("unauthorized", fatal=True)
            assert await signal.closed() == 4401

    await asyncio.gather(
        silent(),
        *(wrong(kind="auth", token=token) for token in BAD.values()),
        wrong(kind="auth"),
        wrong(kind="offer", sdp="v=0"),
        wrong(kind="bye"),
    )


async def test_the_page_and_a_preflight_need_no_token(http: aiohttp.ClientSession, guarded: Server) -> None:
    async with http.get(f"{guarded.url}/") as answer:
        assert answer.status == 200
    async with http.get(f"{guarded.ops}/readyz") as answer:
        assert answer.status == 200


def test_no_token_without_a_good_secret() -> None:
    assert command("token", "--can-view").returncode == 64
    short = command("token", "--can-view", SACCADE_AUTH__SECRET="short")
    assert short.returncode == 64 and "32" in short.stderr and "short" not in short.stdout
    refused = command("serve", "--check", SACCADE_AUTH__SECRET="a short one, secret")
    assert refused.returncode == 64
    assert "a short one, secret" not in refused.stderr + refused.stdout, "secrets are not shown"


class Issuer:
    """Somebody who signs tokens with a private key and publishes the other half."""

    def __init__(self, kid: str, algorithm: str) -> None:
        self.kid, self.algorithm = kid, algorithm
        if algorithm == "RS256":
            self.key = rsa.generate_private_key(65537, 2048)
            numbers = self.key.public_key().public_numbers()
            self.public = {"kty": "RSA", "n": number(numbers.n, 256), "e": number(numbers.e, 3)}
        elif algorithm == "ES256":
            self.key = ec.generate_private_key(ec.SECP256R1())
            numbers = self.key.public_key().public_numbers()
            self.public = {"kty": "EC", "crv": "P-256", "x": number(numbers.x, 32), "y": number(numbers.y, 32)}
        else:
            self.key = ed25519.Ed25519PrivateKey.generate()
            self.public = {"kty": "OKP", "crv": "Ed25519", "x": encode(self.key.public_key().public_bytes_raw())}
        self.public |= {"kid": kid, "alg": algorithm, "use": "sig"}

    def token(self, claims: dict, **header: object) -> str:
        header = {"alg": self.algorithm, "kid": self.kid} | header
        text = ".".join(encode(json.dumps(it).encode()) for it in (header, claims))
        if self.algorithm == "RS256":
            signature = self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        elif self.algorithm == "ES256":
            r, s = decode_dss_signature(self.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
            signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
        else:
            signature = self.key.sign(text.encode())
        return f"{text}.{encode(signature)}"

    def pem(self) -> bytes:
        kind = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return self.key.public_key().public_bytes(*kind)


def number(value: int, size: int) -> str:
    return encode(value.to_bytes(size, "big"))


ISSUERS = [Issuer("rsa", "RS256"), Issuer("ec", "ES256"), Issuer("ed", "EdDSA")]
API_KEY = "sk_" + "5a" * 32


def publish(path: Path, issuers: list[Issuer]) -> None:
    """Replaces the file in one go, as one should."""
    shared = {"kty": "oct", "kid": "shared", "k": encode(SECRET.encode())}
    following = path.with_suffix(".next")
    following.write_text(json.dumps({"keys": [shared, *(it.public for it in issuers)]}))
    following.rename(path)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server that knows issuers and an API key, and whose tokens end to the second."""
    path = tmp_path_factory.mktemp("keys") / "jwks.json"
    publish(path, ISSUERS)
    digest = hashlib.sha256(API_KEY.encode()).hexdigest()
    table = {"name": "dashboard", "sha256": digest, "can_view": True, "can_publish": True, "max_sessions": 1}
    server = Server(
        auth__jwks_file=path,
        auth__secret=SECRET,
        auth__leeway_s=0,
        auth__api_keys=json.dumps([table]),
        shutdown__grace_ms=500,
    )
    yield server, path
    server.stop()
    said = server.said()
    assert API_KEY not in said and "eyJ" not in said, "tokens are not logged"


async def status(http: aiohttp.ClientSession, server: Server, token: str, path: str = "/v1/sessions") -> int:
    async with http.get(f"{server.url}{path}", headers=bearer(token)) as answer:
        return answer.status


@pytest.mark.parametrize("issuer", ISSUERS, ids=lambda issuer: issuer.algorithm)
async def test_public_keys_check_tokens(http: aiohttp.ClientSession, keyed, issuer: Issuer) -> None:
    server, path = keyed
    assert await status(http, server, issuer.token(claims())) == 200
    for wrong in [
        issuer.token(claims(-60)),
        issuer.token(claims(nbf=int(time.time() + 60))),
        issuer.token({"can_view": True}),
        issuer.token(claims(), kid="unknown"),
        issuer.token(claims(), kid="shared"),
        issuer.token(claims(), kid=None),
        issuer.token(claims(), alg="none"),
        issuer.token(claims(), alg="HS256"),
        issuer.token(claims(), alg="ES256" if issuer.algorithm != "ES256" else "RS256"),
        Issuer(issuer.kid, issuer.algorithm).token(claims()),
        *(issuer.token(claims(), kid=other.kid) for other in ISSUERS if other is not issuer),
    ]:
        assert await status(http, server, wrong) == 401
    # What everybody may read is no secret to sign with.
    for known in (issuer.pem(), issuer.pem().strip(), path.read_bytes(), json.dumps(issuer.public).encode()):
        for header in ({"alg": "HS256"}, {"alg": "HS256", "kid": issuer.kid}):
            text = ".".join(encode(json.dumps(it).encode()) for it in (header, claims()))
            forged = f"{text}.{encode(hmac.new(known, text.encode(), hashlib.sha256).digest())}"
            assert await status(http, server, forged) == 401


async def test_keys_are_rotated_by_their_file(http: aiohttp.ClientSession, keyed) -> None:
    server, path = keyed
    following = Issuer("next", "EdDSA")
    assert await status(http, server, following.token(claims())) == 401
    publish(path, [*ISSUERS, following])
    try:
        async with asyncio.timeout(10):
            while await status(http, server, following.token(claims())) != 200:
                await asyncio.sleep(0.1)
        assert await status(http, server, ISSUERS[0].token(claims())) == 200
        path.write_text("half a fil")
        assert await status(http, server, following.token(claims())) == 200
        publish(path, [following])
        async with asyncio.timeout(10):
            while await status(http, server, ISSUERS[0].token(claims())) != 401:
                await asyncio.sleep(0.1)
        assert await status(http, server, following.token(claims())) == 200
        assert await status(http, server, signed(claims())) == 200, "the secret counts beside them"
    finally:
        publish(path, ISSUERS)
        async with asyncio.timeout(10):
            while await status(http, server, ISSUERS[0].token(claims())) != 200:
                await asyncio.sleep(0.1)


async def test_a_session_ends_with_its_token_unless_it_is_renewed(http, keyed, scene: Scene) -> None:
    server, _ = keyed
    start = time.monotonic()
    first, second = signed(claims(6, sub="cam")), signed(claims(11, sub="cam"))
    async with Peer(scene) as peer, await Signal.open(http, server.ws, peer, headers=bearer(first)) as signal:
        await signal.expect("welcome")
        await signal.negotiate(await peer.offer(), options={"return": "results"})
        await peer.results.more(2, "results")
        await signal.send("auth", token=signed(claims(sub="somebody else")))
        await signal.error("forbidden", fatal=False)
        await signal.send("auth", token=signed(claims(-5, sub="cam")))
        await signal.error("unauthorized", fatal=False)
        await signal.send("auth", token=second)
        await signal.error("unauthorized", fatal=True)
        assert (await signal.expect("closed"))["reason"] == "token_expired"
        assert await signal.closed() == 4401
        assert 9 < time.monotonic() - start < 14, "the second token counted, and to its end"


async def test_streams_and_posted_sessions_end_with_their_tokens(http, keyed, scene: Scene) -> None:
    server, _ = keyed
    async with Peer(scene) as peer:
        camera = signed(claims(5, sub="posted"))
        session = await connect(http, server.url, peer, {"return": "results"}, headers=bearer(camera))
        url = f"{server.url}/v1/sessions/{session}"
        viewer = signed(claims(3, can_publish=False))
        start = time.monotonic()
        async with http.get(f"{url}/results?access_token={viewer}") as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            assert b"detections" in b"".join([line async for line in answer.content])
        assert 1 < time.monotonic() - start < 5
        async with http.get(f"{url}/events?access_token={viewer}") as answer:
            assert answer.status == 401
        async with http.get(f"{url}/results", headers=bearer(signed(claims()))) as answer:
            assert answer.status == 200
            # Ends with the session.
            async for _ in answer.content:
                pass
        assert time.monotonic() - start < 8
        async with http.get(url, headers=bearer(signed(claims()))) as answer:
            assert answer.status == 404


async def test_a_token_is_bound_to_models(http: aiohttp.ClientSession, guarded: Server, scene: Scene) -> None:
    token = made("--can-publish", "--can-view", "--can-configure", "--models", "ppe-nano")
    async with http.get(f"{guarded.url}/v1/models", headers=bearer(token)) as answer:
        assert {it["name"] for it in await answer.json()} == {"ppe-nano"}
    async with Peer(scene) as peer, await Signal.open(http, guarded.ws, peer, headers=bearer(token)) as signal:
        assert (await signal.expect("welcome"))["models"] == ["ppe-nano"]
        await signal.send("offer", sdp=await peer.offer(), options={"model": "scene-blobs"})
        await signal.error("forbidden", fatal=False)
        answer = await signal.negotiate(await peer.offer(), options={"return": "results"})
        assert answer["options"]["model"] == "ppe-nano", "the first that it may use, where none is named"
        await signal.send("configure", options={"model": "scene-blobs"})
        await signal.error("forbidden", fatal=False)
        await signal.send("bye")
        await signal.expect("closed")
    body = {"sdp": "v=0", "type": "offer", "options": {"model": "scene-blobs"}}
    async with http.post(f"{guarded.url}/v1/offer", json=body, headers=bearer(token)) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (403, "forbidden")


async def test_a_token_is_bound_to_a_session(http: aiohttp.ClientSession, guarded: Server, scene: Scene) -> None:
    camera = made("--sub", "cam", "--can-publish")
    async with Peer(scene) as peer, Peer(scene) as other:
        own = await connect(http, guarded.url, peer, {"return": "results"}, headers=bearer(camera))
        foreign = await connect(http, guarded.url, other, {"return": "results"}, headers=bearer(camera))
        bound = made("--session", own, "--can-view", "--can-publish", "--can-configure")
        async with http.get(f"{guarded.url}/v1/sessions", headers=bearer(bound)) as answer:
            assert [it["session_id"] for it in await answer.json()] == [own]
        for more in ("", "/results", "/events"):
            assert await status(http, guarded, bound, f"/v1/sessions/{foreign}{more}") == 404
        async with http.delete(f"{guarded.url}/v1/sessions/{foreign}", headers=bearer(bound)) as answer:
            assert answer.status == 404
        body = {"sdp": "v=0", "type": "offer"}
        async with http.post(f"{guarded.url}/v1/offer", json=body, headers=bearer(bound)) as answer:
            assert answer.status == 403
        await other.results.more(2, "results")
        for session, token in ((own, bound), (foreign, camera)):
            async with http.delete(f"{guarded.url}/v1/sessions/{session}", headers=bearer(token)) as answer:
                assert answer.status == 200


async def test_an_api_key_has_its_claims_and_its_number_of_sessions(http, keyed, scene: Scene) -> None:
    server, _ = keyed
    assert await status(http, server, API_KEY) == 200
    assert await status(http, server, API_KEY[:-1]) == 401
    assert await status(http, server, hashlib.sha256(API_KEY.encode()).hexdigest()) == 401
    async with Peer(scene) as peer, Peer(scene) as late:
        session = await connect(http, server.url, peer, {"return": "results"}, headers=bearer(API_KEY))
        body = {"sdp": await late.offer(), "type": "offer"}
        async with http.post(f"{server.url}/v1/offer", json=body, headers=bearer(API_KEY)) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (429, "capacity")
            assert int(answer.headers["retry-after"]) >= 1
        # Others have places of their own.
        other = bearer(signed(claims(sub="other", max_sessions=1)))
        second = await connect(http, server.url, late, {"return": "results"}, headers=other)
        for path, headers in ((session, bearer(API_KEY)), (second, other)):
            async with http.delete(f"{server.url}/v1/sessions/{path}", headers=headers) as answer:
                assert answer.status == 200


def test_an_api_key_comes_with_the_table_that_lets_it_in(tmp_path: Path) -> None:
    done = command("token", "--api-key", "--sub", "gate", "--can-view", "--max-sessions", "2")
    assert done.returncode == 0, done
    key, _, table = done.stdout.partition("\n\n")
    assert hashlib.sha256(key.encode()).hexdigest() in table and key not in table
    file = tmp_path / "saccade.toml"
    file.write_text(f'[http]\nlisten = "0.0.0.0:8080"\n{table}')
    assert command("serve", "--check", "--config", str(file)).returncode == 0
    file.write_text('[auth]\njwks_file = "/no/such/file"\n')
    refused = command("serve", "--check", "--config", str(file))
    assert refused.returncode == 64 and "jwks_file" in refused.stderr
