"""Tokens: who may do what, over HTTP and over the WebSocket."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import aiohttp
import pytest
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


def signed(claims: dict, secret: str = SECRET, algorithm: str = "HS256") -> str:
    """A token (RFC 7515) made by hand."""

    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

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
    "not yet valid": signed(claims(nbf=int(time.time() + 60))),
    "unsigned": signed(claims(), algorithm="none"),
    "of another algorithm": signed(claims(), algorithm="HS512"),
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
    async with http.get(f"{guarded.url}/v1/sessions?token={good}&access_token={good}") as answer:
        assert answer.status == 401


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
