"""The HTTP API with an ordinary client: sessions, results as events, models, health, metrics, errors, origins."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from feed import LIMIT
from peer import Peer, connect
from prometheus_client.parser import text_string_to_metric_families
from scene import Scene
from server import SHOP, Server

FOREIGN = "https://evil.example"


async def fetch(http: aiohttp.ClientSession, url: str, status: int = 200) -> object:
    async with http.get(url) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def problem(answer: aiohttp.ClientResponse, status: int, code: str) -> dict:
    """The problem (RFC 9457) that an answer has to be."""
    body = json.loads(await answer.text())
    assert (answer.status, body["status"], body["code"]) == (status, status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["title"] and body["detail"].endswith("."), body
    return body


# --- sessions ---


async def test_a_session_is_listed_watched_and_deleted(http: aiohttp.ClientSession, server: Server, scene: Scene) -> None:
    async with Peer(scene, "VP8") as peer:
        session = await connect(http, server.url, peer, {"budget_ms": 1900})
        url = f"{server.url}/v1/sessions/{session}"
        await peer.results.more(2, "results")

        before = await fetch(http, url)
        assert before["session_id"] == session
        assert before["state"] == "connected"
        assert before["codec"] == "VP8"
        assert before["resolution"] == [640, 480]
        assert before["options"]["budget_ms"] == 1900 and before["options"]["model"] == "scene-blobs"
        assert session in [it["session_id"] for it in await fetch(http, f"{server.url}/v1/sessions")]

        await peer.results.more(5, "results")
        await peer.pictures.more(3, "pictures")
        after = await fetch(http, url)
        assert after["age_s"] > before["age_s"] > 0
        for counter in ("packets_in", "access_units", "decoded", "inferred", "returned", "results"):
            assert after["counters"][counter] > before["counters"][counter], (counter, after["counters"])
        assert after["counters"]["keyframe_requests_out"] <= 3
        stages = {it["stage"]: it for it in after["stages"]}
        for stage in ("decode", "inference", "encode", "total"):
            assert 0 < stages[stage]["p50_ms"] <= stages[stage]["p95_ms"], stages

        async with http.delete(url) as answer:
            assert answer.status == 200
        async with http.delete(url) as answer:
            await problem(answer, 404, "not_found")
        async with http.get(url) as answer:
            await problem(answer, 404, "not_found")
        async with http.get(f"{url}/results") as answer:
            await problem(answer, 404, "not_found")
        assert session not in [it["session_id"] for it in await fetch(http, f"{server.url}/v1/sessions")]


async def events(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The data of each Server-Sent Event."""
    data: list[str] = []
    async for line in answer.content:
        field, _, value = line.decode("utf-8").rstrip("\r\n").partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif not field and not value and data:
            yield "\n".join(data)
            data = []


async def test_events_carry_the_same_json_as_the_data_channel(
    http: aiohttp.ClientSession, server: Server, scene: Scene
) -> None:
    async with Peer(scene) as peer:
        session = await connect(http, server.url, peer, {"return": "results"})
        await peer.results.more(1, "results")
        url = f"{server.url}/v1/sessions/{session}"
        async with http.get(f"{url}/results", headers={"accept": "text/event-stream"}) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/event-stream"
            assert answer.headers["cache-control"] == "no-store"
            stream, streamed = events(answer), []
            async with asyncio.timeout(LIMIT):
                while len(streamed) < 10:
                    streamed.append(json.loads(await anext(stream)))
            last = streamed[-1]["frame_id"]
            await peer.results.until(lambda it: it[-1]["frame_id"] >= last, "the streamed results")
            by_frame = {it["frame_id"]: it for it in peer.results}
            assert [by_frame.get(it["frame_id"]) for it in streamed] == streamed

            # The stream ends with the session.
            async with http.delete(url) as deleted:
                assert deleted.status == 200
            async with asyncio.timeout(LIMIT):
                async for _ in stream:
                    pass


async def test_models_say_what_they_find(http: aiohttp.ClientSession, server: Server, scene: Scene) -> None:
    models = {it["name"]: it for it in await fetch(http, f"{server.url}/v1/models")}
    blobs = models["scene-blobs"]
    assert blobs["default"] and not models["ppe-nano"]["default"]
    assert blobs["classes"] == scene.classes == models["ppe-nano"]["classes"]
    assert blobs["task"] == "detect" and blobs["version"] == "1" and blobs["licence"]
    assert all(it["backend"] in ("cpu", "openvino") and it["precision"] for it in models.values())
    assert all(len(it["input"]) == 2 and min(it["input"]) >= 32 for it in models.values())


# --- ops ---


async def test_health(http: aiohttp.ClientSession, server: Server) -> None:
    assert (await fetch(http, f"{server.ops}/healthz"))["status"] == "ok"
    ready = await fetch(http, f"{server.ops}/readyz")
    assert (ready["ready"], ready["reasons"]) == (True, [])
    assert {"piece", "works", "found"} == set(ready["hardware"][0])
    # What operators see is on their listener alone.
    for path in ("healthz", "readyz", "metrics"):
        async with http.get(f"{server.url}/{path}") as answer:
            assert answer.status == 404
    async with http.get(f"{server.ops}/v1/sessions") as answer:
        assert answer.status == 404


async def test_metrics_are_what_dashboards_rely_on(
    http: aiohttp.ClientSession, server: Server, scene: Scene, witness: Peer
) -> None:
    async with Peer(scene) as peer:
        session = await connect(http, server.url, peer)
        await peer.pictures.more(5, "pictures")
        async with http.delete(f"{server.url}/v1/sessions/{session}") as answer:
            assert answer.status == 200
    async with http.get(f"{server.ops}/metrics") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        text = await answer.text()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    # The parser takes `_total` off the names of counters.
    expected = {
        "saccade_sessions_active": ("gauge", set()),
        "saccade_sessions": ("counter", {"end_reason"}),
        "saccade_frames": ("counter", {"stage", "outcome"}),
        "saccade_stage_duration_seconds": ("histogram", {"stage"}),
        "saccade_frame_latency_seconds": ("histogram", {"path"}),
        "saccade_batch_size": ("histogram", set()),
        "saccade_queue_wait_seconds": ("histogram", {"queue"}),
        "saccade_inference_seconds": ("histogram", {"model"}),
        "saccade_inference_in_flight": ("gauge", set()),
        "saccade_http_requests": ("counter", {"route", "method", "status"}),
        "saccade_http_request_seconds": ("histogram", {"route"}),
        "saccade_build_info": ("gauge", {"version"}),
        "process_cpu_seconds": ("counter", set()),
        "process_resident_memory_bytes": ("gauge", set()),
        "process_open_fds": ("gauge", set()),
    }
    for name, (kind, labels) in expected.items():
        assert name in families, f"no {name} in {sorted(families)}"
        family = families[name]
        assert family.type == kind, (name, family.type)
        assert family.documentation, f"{name} has no help"
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, sample
    for name, family in families.items():
        assert name.startswith(("saccade_", "process_")), name
        for sample in family.samples:
            assert not any(len(value) > 60 or session in value for value in sample.labels.values()), sample
        if family.type == "histogram":
            check_histogram(family)
    latency = [".001", ".0025", ".005", ".01", ".02", ".025", ".05", ".1", ".2", ".25", ".5", "1", "2.5", "5"]
    for name, family in families.items():
        if family.type == "histogram" and name.endswith("_seconds"):
            bounds = {float(it.labels["le"]) for it in family.samples if it.name.endswith("_bucket")}
            assert bounds == {float(it) for it in latency} | {float("inf")}, name

    def value(name: str, **labels: str) -> float:
        samples = families[name].samples
        return sum(it.value for it in samples if it.labels.items() >= labels.items() and it.name.count("bucket") == 0)

    assert value("saccade_sessions_active") >= 1
    assert value("saccade_sessions", end_reason="deleted") >= 1
    stages = {it.labels["stage"] for it in families["saccade_stage_duration_seconds"].samples}
    assert stages >= {"decode", "preprocess", "inference", "postprocess", "annotate", "encode"}, stages
    routes = {it.labels["route"] for it in families["saccade_http_requests"].samples}
    assert "/v1/sessions/{id}" in routes, routes


def check_histogram(family) -> None:
    """Buckets rise, and the last one counts everything."""
    series: dict[tuple, dict[str, list]] = {}
    for it in family.samples:
        key = tuple(sorted((name, value) for name, value in it.labels.items() if name != "le"))
        kind = it.name.removeprefix(family.name)
        series.setdefault(key, {}).setdefault(kind, []).append((float(it.labels.get("le", "nan")), it.value))
    for key, parts in series.items():
        bounds, counts = zip(*parts["_bucket"], strict=True)
        assert list(bounds) == sorted(bounds) and bounds[-1] == float("inf"), (family.name, key)
        assert list(counts) == sorted(counts) and counts[-1] == parts["_count"][0][1], (family.name, key)
        assert parts["_sum"][0][1] >= 0


# --- errors ---


async def test_every_error_is_a_problem_with_a_code(
    http: aiohttp.ClientSession, server: Server, scene: Scene, witness: Peer
) -> None:
    async with Peer(scene) as peer:
        sdp = await peer.offer()
    offer = {"sdp": sdp, "type": "offer"}
    url = f"{server.url}/v1/offer"
    cases = [
        (400, "bad_request", {"data": b"{", "headers": {"content-type": "application/json"}}),
        (400, "bad_request", {"data": b"\xff\xfe", "headers": {"content-type": "application/json"}}),
        (400, "bad_request", {"json": []}),
        (400, "bad_request", {"json": {}}),
        (400, "bad_request", {"json": {"sdp": 7, "type": "offer"}}),
        (400, "bad_request", {"json": offer | {"type": "answer"}}),
        (400, "bad_sdp", {"json": offer | {"sdp": "hello"}}),
        (413, "too_large", {"json": offer | {"sdp": "v=0\r\n" + "a=x\r\n" * 20_000}}),
        (413, "too_large", {"data": b" " * 1_000_000, "headers": {"content-type": "application/json"}}),
        (415, "unsupported_type", {"data": json.dumps(offer), "headers": {"content-type": "text/plain"}}),
        (415, "unsupported_type", {"data": sdp, "headers": {"content-type": "application/sdp"}}),
        (422, "bad_options", {"json": offer | {"options": {"modle": 1}}}),
        (422, "bad_options", {"json": offer | {"options": {"budget_ms": 5001}}}),
        (422, "unknown_model", {"json": offer | {"options": {"model": "dragon"}}}),
        (422, "no_video", {"json": offer | {"sdp": sdp.replace("a=sendrecv", "a=inactive")}}),
    ]
    for status, code, request in cases:
        async with http.post(url, **request) as answer:
            await problem(answer, status, code)
    for path in ("/v1/none", "/v1/sessions/none", "/v1/sessions/%00", "/v1/sessions/..%2f..", "/v1/sessions/" + "0" * 32):
        async with http.get(f"{server.url}{path}") as answer:
            await problem(answer, 404, "not_found")
    async with http.get(url) as answer:
        await problem(answer, 405, "bad_request")
        assert answer.headers["allow"] == "POST"
    async with http.delete(f"{server.url}/v1/models") as answer:
        await problem(answer, 405, "bad_request")
    async with http.get(f"{server.url}/v1/signal") as answer:
        await problem(answer, 426, "bad_request")
    async with http.get(f"{server.url}/v1/models", headers={"host": "rebound.example"}) as answer:
        await problem(answer, 421, "forbidden")
    await witness.results.more(2, "results of the healthy session")


# --- browsers ---


async def test_an_allowed_origin_may_use_the_api(http: aiohttp.ClientSession, server: Server) -> None:
    ask = {"origin": SHOP, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    async with http.options(f"{server.url}/v1/offer", headers=ask) as answer:
        assert answer.status in (200, 204)
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert "content-type" in answer.headers["access-control-allow-headers"].lower()
        assert "access-control-allow-credentials" not in answer.headers
    async with http.get(f"{server.url}/v1/models", headers={"origin": SHOP}) as answer:
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == SHOP
        assert "origin" in answer.headers["vary"].lower()
        exposed = {it.strip() for it in answer.headers["access-control-expose-headers"].lower().split(",")}
        assert exposed >= {"location", "etag", "link"}
    # An error can be read, too.
    async with http.post(f"{server.url}/v1/offer", json={}, headers={"origin": SHOP}) as answer:
        await problem(answer, 400, "bad_request")
        assert answer.headers["access-control-allow-origin"] == SHOP


@pytest.mark.parametrize("origin", [FOREIGN, "null", "http://shop.example", "https://shop.example.evil.example"])
async def test_a_foreign_origin_may_not(http: aiohttp.ClientSession, server: Server, origin: str) -> None:
    ask = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    async with http.options(f"{server.url}/v1/offer", headers=ask) as answer:
        assert "access-control-allow-origin" not in answer.headers
    async with http.get(f"{server.url}/v1/models", headers={"origin": origin}) as answer:
        assert "access-control-allow-origin" not in answer.headers
    async with http.post(f"{server.url}/v1/offer", json={}, headers={"origin": origin}) as answer:
        await problem(answer, 403, "forbidden")
    async with http.delete(f"{server.url}/v1/sessions/{'0' * 32}", headers={"origin": origin}) as answer:
        await problem(answer, 403, "forbidden")


async def test_the_page_comes_with_its_security_headers(http: aiohttp.ClientSession, server: Server) -> None:
    async with http.get(f"{server.url}/") as answer:
        assert answer.status == 200 and answer.content_type == "text/html"
        policy = dict(it.strip().partition(" ")[::2] for it in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'self'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert policy["base-uri"] == "'none'" and "frame-ancestors" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers
    for path, kind in [("/saccade.js", "text/javascript"), ("/favicon.svg", "image/svg+xml")]:
        async with http.get(f"{server.url}{path}") as answer:
            assert (answer.status, answer.content_type) == (200, kind), path
            assert answer.headers["x-content-type-options"] == "nosniff"
    async with http.get(f"{server.url}/scene/scene.mp4", headers={"range": "bytes=0-99"}) as answer:
        assert answer.status == 206 and len(await answer.read()) == 100
    for path in ("/../Cargo.toml", "/%2e%2e/Cargo.toml", "/..%2fCargo.toml", "/none"):
        async with http.get(f"{server.url}{path}") as answer:
            assert answer.status == 404, path
