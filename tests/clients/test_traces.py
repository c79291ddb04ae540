"""Traces of set-ups, requests and frames, at a collector that reads them with OpenTelemetry's own messages."""

import asyncio
import re
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator

import aiohttp
import cv2
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from collector import Collector, millis, value
from peer import Peer, Signal, connect, post_offer
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from server import Server, free_port
from test_kserve import grpc_address
from test_whep import viewers
from tritonclient.utils import InferenceServerException

SET_UP = [
    "session.admit",
    "session.answer",
    "session.start",
    "session.gather",
    "session.ice",
    "session.dtls",
    "session.first_packet",
    "session.first_frame",
    "session.first_result",
]
RETURNED = ["decode", "queue", "preprocess", "inference", "postprocess", "annotate", "encode", "send"]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def caller(flags: str = "01", trace: str = TRACE) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{SPAN}-{flags}", "tracestate": "congo=t61rcWkgMzE"}


def spans_counted(server: Server, outcome: str) -> int:
    with urllib.request.urlopen(f"{server.ops}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = re.search(rf'^saccade_trace_spans_total{{outcome="{outcome}"}} (\d+)$', text, re.MULTILINE)
    return int(found[1]) if found else 0


async def counted(server: Server, outcome: str, limit: float = 20.0) -> int:
    """Waits until spans are counted so."""
    async with asyncio.timeout(limit):
        while not (count := await asyncio.to_thread(spans_counted, server, outcome)):
            await asyncio.sleep(0.1)
    return count


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    headers = tmp_path_factory.mktemp("otlp") / "headers"
    headers.write_text("# of the collector\nAuthorization: Bearer w0rd\n")
    server = Server(
        telemetry__otlp_endpoint=collector.url,
        telemetry__otlp_headers_file=headers,
        telemetry__frame_traces_per_s=5,
        shutdown__grace_ms=1000,
    )
    yield server
    server.stop()


@pytest.fixture
def joined() -> Iterator[tuple[Server, Collector]]:
    """One that traces nothing but what its callers do."""
    with Collector() as collector:
        server = Server(
            telemetry__otlp_endpoint=collector.url,
            telemetry__trace_sample_ratio=0.0,
            telemetry__frame_traces_per_s=0,
            shutdown__grace_ms=1000,
        )
        yield server, collector
        server.stop()


async def test_a_set_up_is_traced_step_by_step(traced: Server, collector: Collector, http, scene) -> None:
    async with Peer(scene) as peer:
        session = await connect(http, traced.url, peer)
        await peer.results.more(1, "results")
        mine = lambda: [it for it in collector.named("session.setup") if value(it, "saccade.session.id") == session]
        await asyncio.to_thread(collector.until, mine, "set-up of the session")
        (root,) = mine()
        parts = collector.parts(root)
    assert [it.name for it in parts] == SET_UP
    assert not root.parent_span_id and len(root.trace_id) == 16 and len(root.span_id) == 8
    assert root.kind == root.SPAN_KIND_SERVER and not root.status.code
    assert (value(root, "saccade.codec"), value(root, "saccade.model")) == ("H264", "scene-blobs@1")
    assert root.start_time_unix_nano == parts[0].start_time_unix_nano
    for one, next in zip(parts, parts[1:], strict=False):
        assert one.start_time_unix_nano <= one.end_time_unix_nano == next.start_time_unix_nano
    assert parts[-1].end_time_unix_nano == root.end_time_unix_nano
    assert abs(root.end_time_unix_nano / 1e9 - time.time()) < 60

    resource = collector.resources[0]
    assert resource["service.name"] == "saccade" and re.fullmatch(r"\d+\.\d+\.\d+", resource["service.version"])
    assert len({it["service.instance.id"] for it in collector.resources}) == 1 == len(collector.resources[0]["service.instance.id"]) - 35
    assert {it["authorization"] for it in collector.headers} == {"Bearer w0rd"}
    everything = b"".join(collector.bodies)
    for secret in (b"127.0.0.1", b"a=ice", b"candidate", b"w0rd"):
        assert secret not in everything


async def test_frames_that_go_back_are_traced_stage_by_stage(traced: Server, collector: Collector, http, scene) -> None:
    async with Peer(scene) as peer:
        session = await connect(http, traced.url, peer)
        await peer.results.more(30, "results")
        done = lambda: [
            it
            for it in collector.named("frame")
            if value(it, "saccade.session.id") == session and value(it, "saccade.outcome") == "returned"
        ]
        await asyncio.to_thread(collector.until, lambda: len(done()) >= 3, "three frames")
        frames = done()
        results = {it["frame_id"]: it for it in peer.results}
        (setup,) = [it for it in collector.named("session.setup") if value(it, "saccade.session.id") == session]
    assert len({it.trace_id for it in frames}) == len(frames), "each frame is a trace of its own"
    compared = 0
    for root in frames:
        assert not root.parent_span_id and root.trace_id != setup.trace_id
        assert [(it.trace_id, it.span_id) for it in root.links] == [(setup.trace_id, setup.span_id)]
        assert (value(root, "saccade.frame.width"), value(root, "saccade.frame.height")) == (scene.width, scene.height)
        assert (value(root, "saccade.codec"), value(root, "saccade.model")) == ("H264", "scene-blobs@1")
        parts = [it for it in collector.parts(root) if it.name != "reorder"]
        assert [it.name for it in parts] == RETURNED
        at = root.start_time_unix_nano
        for part in parts:
            assert at <= part.start_time_unix_nano <= part.end_time_unix_nano <= root.end_time_unix_nano, part.name
            at = part.end_time_unix_nano
        assert 0 < millis(root) < 2000, "the session's budget is two seconds"
        if result := results.get(value(root, "saccade.frame.id")):
            took = {it.name: millis(it) for it in parts}
            for stage in RETURNED[:6]:
                assert took[stage] == pytest.approx(result["timing_ms"][stage], abs=0.01), stage
            assert value(root, "saccade.batch_size") == result["batch_size"]
            assert value(root, "saccade.met") == result["met"]
            compared += 1
    assert compared >= 2


async def test_a_frame_that_stays_ends_with_its_result(traced: Server, collector: Collector, http, scene) -> None:
    async with Peer(scene) as peer:
        session = await connect(http, traced.url, peer, {"return": "results"})
        await peer.results.more(20, "results")
        told = lambda: [
            it
            for it in collector.named("frame")
            if value(it, "saccade.session.id") == session and value(it, "saccade.outcome") == "told"
        ]
        await asyncio.to_thread(collector.until, lambda: len(told()) >= 2, "two frames")
        frames, results = told(), {it["frame_id"]: it for it in peer.results}
    compared = 0
    for root in frames:
        assert [it.name for it in collector.parts(root) if it.name != "reorder"] == RETURNED[:5]
        if result := results.get(value(root, "saccade.frame.id")):
            assert millis(root) == pytest.approx(result["timing_ms"]["total"], abs=0.01)
            compared += 1
    assert compared


async def test_a_frame_that_goes_ahead_of_its_result_has_both_ways_in_one_trace(traced, collector, http, scene) -> None:
    async with Peer(scene) as peer:
        session = await connect(http, traced.url, peer, {"return": "predicted"})
        await peer.results.more(20, "results")
        done = lambda: [
            it
            for it in collector.named("frame")
            if value(it, "saccade.session.id") == session and value(it, "saccade.met") is not None and len(collector.parts(it)) >= 8
        ]
        await asyncio.to_thread(collector.until, lambda: len(done()) >= 2, "two frames")
    for root in done():
        parts = {it.name: it for it in collector.parts(root)}
        assert set(RETURNED) <= set(parts)
        assert parts["decode"].end_time_unix_nano <= parts["annotate"].start_time_unix_nano
        assert all(it.end_time_unix_nano <= root.end_time_unix_nano for it in parts.values())


async def test_a_caller_s_trace_is_joined(joined: tuple[Server, Collector], http, scene) -> None:
    server, collector = joined
    async with Peer(scene) as peer:
        answer = await post_offer(http, server.url, await peer.offer(), {"return": "results"}, headers=caller())
        await peer.answer(answer["sdp"])
        await peer.results.more(1, "results")
        await asyncio.to_thread(collector.until, lambda: collector.named("session.setup"), "set-up")
    (setup,), (request,) = collector.named("session.setup"), collector.named("POST /v1/offer")
    assert request.trace_id.hex() == TRACE and request.parent_span_id.hex() == SPAN
    assert setup.trace_id.hex() == TRACE and setup.parent_span_id == request.span_id
    assert {it.trace_state for it in collector.spans} == {"congo=t61rcWkgMzE"}
    assert (value(request, "http.response.status_code"), value(request, "http.route")) == (200, "/v1/offer")
    assert [it.name for it in collector.parts(setup)] == SET_UP
    assert not collector.named("frame")


async def test_a_socket_s_trace_is_that_of_its_offer(joined: tuple[Server, Collector], http, scene) -> None:
    server, collector = joined
    async with Peer(scene) as peer, await Signal.open(http, server.ws, peer) as signal:
        await signal.expect("welcome")
        answer = await signal.negotiate(await peer.offer(), options={"return": "results"}, **caller())
        await peer.results.more(1, "results")
        await asyncio.to_thread(collector.until, lambda: collector.named("session.setup"), "set-up")
    (setup,) = collector.named("session.setup")
    assert (setup.trace_id.hex(), setup.parent_span_id.hex()) == (TRACE, SPAN)
    assert value(setup, "saccade.session.id") == answer["session_id"]


async def test_what_a_caller_does_not_trace_or_says_badly_is_answered_and_not_traced(joined, http) -> None:
    server, collector = joined
    other = "1" * 32
    for headers in [
        caller("00"),
        caller() | {"traceparent": "00-" + "0" * 32 + f"-{SPAN}-01"},
        caller() | {"traceparent": f"ff-{TRACE}-{SPAN}-01"},
        caller() | {"traceparent": "not a parent"},
        {"tracestate": "congo=t61rcWkgMzE"},
        # A state that is wrong does not spoil the parent.
        caller(trace=other) | {"tracestate": "Not=, a state"},
    ]:
        async with http.get(f"{server.url}/v1/sessions", headers=headers) as answer:
            assert answer.status == 200
    await asyncio.to_thread(collector.until, lambda: collector.spans, "span of the last request")
    (span,) = collector.spans
    assert (span.name, span.trace_id.hex(), span.trace_state) == ("GET /v1/sessions", other, "")


async def test_a_refused_offer_says_why(joined, http) -> None:
    server, collector = joined
    async with http.post(f"{server.url}/v1/offer", json={"sdp": "v=0\r\n", "type": "offer"}, headers=caller()) as answer:
        code = (await answer.json())["code"]
    await asyncio.to_thread(collector.until, lambda: collector.named("session.setup"), "set-up")
    (setup,) = collector.named("session.setup")
    assert (setup.status.code, setup.status.message) == (setup.status.STATUS_CODE_ERROR, code)
    assert [it.name for it in collector.parts(setup)] == ["session.admit"]


WATCHED = ["viewer.admit", "viewer.answer", "viewer.gather", "viewer.ice", "viewer.dtls", "viewer.first_frame"]


async def test_a_viewer_s_set_up_is_traced_step_by_step(traced: Server, collector: Collector, http, scene) -> None:
    async with Peer(scene) as peer, viewers(1) as (viewer,):
        session = await connect(http, traced.url, peer)
        await peer.results.more(1, "results")
        trace = "2" * 32
        await viewer.join(http, traced, session, **caller(trace=trace))
        await viewer.pictures.more(1, "pictures")
        mine = lambda: [it for it in collector.named("viewer.setup") if value(it, "saccade.session.id") == session]
        await asyncio.to_thread(collector.until, mine, "set-up of the viewer")
        await asyncio.to_thread(collector.until, lambda: collector.named("POST /v1/whep/{id}"), "its request")
        (root,), (setup,) = mine(), [it for it in collector.named("session.setup") if value(it, "saccade.session.id") == session]
        parts, (request,) = collector.parts(root), collector.named("POST /v1/whep/{id}")
    assert [it.name for it in parts] == WATCHED
    assert (root.trace_id.hex(), root.parent_span_id, request.parent_span_id.hex()) == (trace, request.span_id, SPAN)
    assert [(it.trace_id, it.span_id) for it in root.links] == [(setup.trace_id, setup.span_id)]
    assert value(root, "saccade.codec") == "H264" and re.fullmatch(r"[0-9a-z]+", value(root, "saccade.viewer.id"))
    assert root.kind == root.SPAN_KIND_SERVER and not root.status.code
    for one, next in zip(parts, parts[1:], strict=False):
        assert one.start_time_unix_nano <= one.end_time_unix_nano == next.start_time_unix_nano
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == (parts[0].start_time_unix_nano, parts[-1].end_time_unix_nano)


async def test_a_viewer_that_is_turned_away_says_why(joined, http, scene) -> None:
    server, collector = joined
    async with Peer(scene) as peer:
        session = await connect(http, server.url, peer, {"return": "results"})
        await peer.results.more(1, "results")
        offer = {"data": "v=0\r\n", "headers": caller() | {"Content-Type": "application/sdp"}}
        async with http.post(f"{server.url}/v1/whep/{session}", **offer) as answer:
            code = (await answer.json())["code"]
        await asyncio.to_thread(collector.until, lambda: collector.named("viewer.setup"), "set-up")
    (setup,) = collector.named("viewer.setup")
    assert (setup.status.code, setup.status.message) == (setup.status.STATUS_CODE_ERROR, code)
    assert [it.name for it in collector.parts(setup)] == ["viewer.admit"]


def picture(scene, number: int = 60) -> bytes:
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(scene.frames[number], cv2.COLOR_YUV2BGR_I420))
    assert done
    return encoded.tobytes()


STEPS = ["cache", "decode", "queue", "preprocess", "inference", "postprocess", "encode"]


async def test_a_still_picture_is_traced_from_its_bytes_to_its_answer(joined, http, scene) -> None:
    server, collector = joined
    sent = picture(scene)
    for wanted, cached in [({}, "miss"), ({}, "hit"), ({"annotate": "jpeg"}, "miss")]:
        before = len(collector.named("picture"))
        headers = caller() | {"Content-Type": "image/jpeg"}
        async with http.post(f"{server.url}/v1/detect", params=wanted, data=sent, headers=headers) as answer:
            assert answer.status == 200
            told = await answer.json() if not wanted else None
        await asyncio.to_thread(collector.until, lambda: len(collector.named("picture")) > before, "picture")
        await asyncio.to_thread(collector.until, lambda: len(collector.named("POST /v1/detect")) > before, "request")
        root, request = collector.named("picture")[-1], collector.named("POST /v1/detect")[-1]
        assert (root.trace_id.hex(), root.parent_span_id) == (TRACE, request.span_id) and request.parent_span_id.hex() == SPAN
        parts = collector.parts(root)
        assert [it.name for it in parts] == (STEPS if cached == "miss" else ["cache"])
        assert value(root, "saccade.cache") == cached and value(root, "saccade.picture.bytes") == len(sent)
        at = root.start_time_unix_nano
        for part in parts:
            assert at <= part.start_time_unix_nano <= part.end_time_unix_nano <= root.end_time_unix_nano, part.name
            at = part.start_time_unix_nano
        if cached == "miss":
            assert (value(root, "saccade.picture.width"), value(root, "saccade.picture.height")) == (scene.width, scene.height)
            assert value(root, "saccade.model") == "scene-blobs"
            assert {value(it, "saccade.model") for it in parts[2:6]} == {"scene-blobs@1"}
        if told and cached == "miss":
            took = {it.name: millis(it) for it in parts}
            for stage in STEPS[2:6]:
                assert took[stage] == pytest.approx(told["timing_ms"][stage], abs=0.01), stage
        assert not root.status.code


async def test_a_picture_that_nobody_wants_back_is_decoded_no_larger_than_the_model_needs_it(joined, http, scene) -> None:
    server, collector = joined
    frame = cv2.cvtColor(scene.frames[60], cv2.COLOR_YUV2BGR_I420)
    done, encoded = cv2.imencode(".jpg", cv2.resize(frame, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))
    assert done
    large = encoded.tobytes()
    for sent, wanted, is_shrunk in [(picture(scene), {}, False), (large, {}, True), (large, {"annotate": "jpeg"}, False)]:
        before = len(collector.named("picture"))
        headers = caller() | {"Content-Type": "image/jpeg"}
        async with http.post(f"{server.url}/v1/detect", params=wanted, data=sent, headers=headers) as answer:
            assert answer.status == 200
        await asyncio.to_thread(collector.until, lambda: len(collector.named("picture")) > before, "picture")
        (decode,) = [it for it in collector.parts(collector.named("picture")[-1]) if it.name == "decode"]
        assert (value(decode, "saccade.decode.shrunk") > 1) == is_shrunk, wanted


async def test_each_picture_of_a_form_is_a_part_of_its_request_and_a_bad_one_says_why(joined, http, scene) -> None:
    server, collector = joined
    form = aiohttp.FormData()
    form.add_field("a", picture(scene), filename="secret name.jpg", content_type="image/jpeg")
    form.add_field("b", b"no picture at all", filename="b.jpg", content_type="image/jpeg")
    async with http.post(f"{server.url}/v1/detect", data=form, headers=caller()) as answer:
        good, bad = await answer.json()
    await asyncio.to_thread(collector.until, lambda: len(collector.named("picture")) == 2, "pictures")
    await asyncio.to_thread(collector.until, lambda: collector.named("POST /v1/detect"), "request")
    (request,) = collector.named("POST /v1/detect")
    first, second = sorted(collector.named("picture"), key=lambda it: value(it, "saccade.picture.place"))
    assert first.parent_span_id == second.parent_span_id == request.span_id
    assert not first.status.code and good["type"] == "result"
    assert (second.status.code, second.status.message) == (second.status.STATUS_CODE_ERROR, bad["code"])
    assert b"secret name" not in b"".join(collector.bodies)


async def test_pictures_that_nobody_traces_are_traced_by_chance_like_set_ups(traced, collector, http, scene) -> None:
    before = {it.span_id for it in collector.named("picture")}
    mine = lambda: [it for it in collector.named("picture") if it.span_id not in before]
    async with http.post(f"{traced.url}/v1/detect", data=picture(scene, 62), headers={"Content-Type": "image/jpeg"}) as answer:
        assert answer.status == 200
    await asyncio.to_thread(collector.until, mine, "picture")
    (root,) = mine()
    assert not root.parent_span_id and root.kind == root.SPAN_KIND_SERVER
    assert [it.name for it in collector.parts(root)] == STEPS


RUN = ["read", "queue", "preprocess", "inference", "postprocess", "encode"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tensors_are_traced_from_their_bytes_to_their_answer(protocol: str) -> None:
    with Collector() as collector:
        more = {"telemetry__otlp_endpoint": collector.url, "telemetry__trace_sample_ratio": 0.0}
        server = Server(**more, grpc__listen="127.0.0.1:0", shutdown__grace_ms=500)
        api = tritonclient.http if protocol == "http" else tritonclient.grpc
        address = server.url.removeprefix("http://") if protocol == "http" else grpc_address(server)
        with api.InferenceServerClient(address) as client:
            about = client.get_model_metadata("scene-blobs")
            outlet = about["inputs"][0] if protocol == "http" else about.inputs[0]
            name, shape = (outlet["name"], outlet["shape"]) if protocol == "http" else (outlet.name, outlet.shape)
            shape = [max(int(side), 1) for side in shape]
            tensor = api.InferInput(name, shape, "FP32")
            tensor.set_data_from_numpy(np.zeros(shape, np.float32))
            client.infer("scene-blobs", [tensor], headers=caller())
            collector.until(lambda: collector.named("tensors"), "tensors")
            route = "/v2/models/{model}/infer" if protocol == "http" else "/inference.GRPCInferenceService/{method}"
            collector.until(lambda: collector.named(f"POST {route}"), "request")
            (root,), (request,) = collector.named("tensors"), collector.named(f"POST {route}")
            assert (root.trace_id.hex(), root.parent_span_id) == (TRACE, request.span_id) and request.parent_span_id.hex() == SPAN
            assert (value(root, "saccade.protocol"), value(root, "saccade.model")) == (protocol, "scene-blobs@1")
            parts = collector.parts(root)
            assert [it.name for it in parts] == RUN
            at = root.start_time_unix_nano
            for part in parts:
                assert at <= part.start_time_unix_nano <= part.end_time_unix_nano <= root.end_time_unix_nano, part.name
                at = part.start_time_unix_nano
            with pytest.raises(InferenceServerException):
                client.infer("none", [tensor], headers=caller())
            collector.until(lambda: len(collector.named("tensors")) == 2, "failure")
            failed = collector.named("tensors")[1]
            word = "unknown_model" if protocol == "http" else "NotFound"
            assert (failed.status.code, failed.status.message) == (failed.status.STATUS_CODE_ERROR, word)
        server.stop()


async def test_a_collector_that_wants_to_be_asked_at_once_is_not_asked_all_the_time(http) -> None:
    with Collector() as collector:
        collector.statuses, collector.retry_after = [503] * 1000, "0"
        server = Server(telemetry__otlp_endpoint=collector.url, telemetry__trace_sample_ratio=0.0, shutdown__grace_ms=200)
        async with http.get(f"{server.url}/v1/sessions", headers=caller()) as answer:
            assert answer.status == 200
        assert await counted(server, "failed") == 1
        assert 3 <= collector.asked <= 6, "after 0.5, 1, 2 and 4 seconds"
        server.stop()


async def test_what_waits_is_flushed_when_the_server_ends(http, scene) -> None:
    with Collector() as collector:
        server = Server(telemetry__otlp_endpoint=collector.url, shutdown__grace_ms=200)
        async with Peer(scene) as peer:
            await connect(http, server.url, peer, {"return": "results"})
            await peer.results.more(1, "results")
            await asyncio.to_thread(server.stop)
        assert collector.named("session.setup")


async def test_a_collector_that_is_away_for_a_while_gets_all(http) -> None:
    with Collector() as collector:
        collector.statuses = [503, 429]
        server = Server(telemetry__otlp_endpoint=collector.url, telemetry__trace_sample_ratio=0.0)
        async with http.get(f"{server.url}/v1/sessions", headers=caller()) as answer:
            assert answer.status == 200
        await asyncio.to_thread(collector.until, lambda: collector.spans, "span")
        assert collector.asked == 3 and await counted(server, "exported") == 1
        collector.rejects = 1
        async with http.get(f"{server.url}/v1/sessions", headers=caller()) as answer:
            assert answer.status == 200
        assert await counted(server, "rejected") == 1
        collector.rejects, collector.statuses = 0, [400]
        async with http.get(f"{server.url}/v1/sessions", headers=caller()) as answer:
            assert answer.status == 200
        assert await counted(server, "failed") == 1
        server.stop()


@pytest.mark.parametrize("kind", ["dead", "silent"])
async def test_video_goes_on_without_a_collector_and_drops_are_counted(http, scene, kind: str) -> None:
    with Collector() as collector:
        collector.hold = threading.Event()
        url = collector.url if kind == "silent" else f"http://127.0.0.1:{free_port()}"
        server = Server(telemetry__otlp_endpoint=url, telemetry__frame_traces_per_s=100, shutdown__grace_ms=200)
        async with Peer(scene, fps=10) as peer:
            await connect(http, server.url, peer, {"return": "results"})
            await peer.results.more(1, "results")
            begin = time.monotonic()
            results = await peer.results.more(60, "results")
            assert time.monotonic() - begin < 12, "60 results of ten frames a second"
            assert sum(it["met"] for it in results) >= 55
            failed = await counted(server, "failed")
            await peer.results.more(5, "results")
        assert failed >= 10
        begin = time.monotonic()
        await asyncio.to_thread(server.stop)
        assert time.monotonic() - begin < 8, "the last spans may take three seconds"
        if kind == "silent":
            assert collector.asked


async def test_prometheus_gets_exemplars_of_traced_frames(traced: Server, collector: Collector, http, scene, tmp_path) -> None:
    port = free_port()
    target = urllib.parse.urlsplit(traced.ops).netloc
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: saccade, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    words = [
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    ]
    with (tmp_path / "log").open("w") as log:
        prometheus = subprocess.Popen(["prometheus", *words], stdout=log, stderr=log)
    try:
        async with Peer(scene) as peer:
            await connect(http, traced.url, peer)
            await peer.results.more(10, "results")
            found = await exemplars(http, f"http://127.0.0.1:{port}")
            of_path = {path: ids for (metric, path), ids in found.items() if metric == "saccade_frame_latency_seconds_bucket"}
            assert of_path["result"] and of_path["video"]
            assert found["saccade_stage_duration_seconds_bucket", "inference"]
            ids = {it for ids in found.values() for it in ids}
            known = lambda: ids <= {it.trace_id.hex() for it in collector.named("frame")}
            await asyncio.to_thread(collector.until, known, "traces of all exemplars")
    finally:
        prometheus.terminate()
        prometheus.wait(20)


async def exemplars(http, url: str) -> dict[tuple[str, str], set[str]]:
    """Ids of traces that Prometheus knows, by metric and label, once both kinds of latency have some."""
    now = time.time()
    query = '{__name__=~"saccade_(frame_latency|stage_duration)_seconds_bucket"}'
    params = {"query": query, "start": str(now - 3600), "end": str(now + 3600)}
    async with asyncio.timeout(40):
        while True:
            found: dict[tuple[str, str], set[str]] = {}
            try:
                async with http.get(f"{url}/api/v1/query_exemplars", params=params) as answer:
                    for series in (await answer.json())["data"] if answer.status == 200 else []:
                        labels = series["seriesLabels"]
                        key = (labels["__name__"], labels.get("path") or labels["stage"])
                        found.setdefault(key, set()).update(it["labels"]["trace_id"] for it in series["exemplars"])
            except OSError:
                pass
            paths = {path for metric, path in found if metric == "saccade_frame_latency_seconds_bucket"}
            if {"result", "video"} <= paths and ("saccade_stage_duration_seconds_bucket", "inference") in found:
                return found
            await asyncio.sleep(0.3)


async def test_open_metrics_are_given_to_whoever_asks_and_nobody_else(traced: Server, collector: Collector, http, scene) -> None:
    async with Peer(scene) as peer:
        await connect(http, traced.url, peer)
        await peer.results.more(20, "results")
        await asyncio.to_thread(collector.until, lambda: collector.named("frame"), "a frame")
    async with http.get(f"{traced.ops}/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
        assert answer.content_type == "application/openmetrics-text"
        text = await answer.text()
    families = {it.name: it for it in text_string_to_metric_families(text)}
    buckets = [it for it in families["saccade_frame_latency_seconds"].samples if it.name.endswith("_bucket")]
    with_exemplars = [it for it in buckets if it.exemplar]
    assert with_exemplars
    for sample in with_exemplars:
        assert sample.exemplar.value <= float(sample.labels["le"]) and sample.value > 0
        assert re.fullmatch("[0-9a-f]{32}", sample.exemplar.labels["trace_id"])
    assert families["saccade_frames"].type == "counter"
    async with http.get(f"{traced.ops}/metrics") as answer:
        assert answer.content_type == "text/plain"
        plain = await answer.text()
    assert "trace_id" not in plain and "# EOF" not in plain and 'le="1"' in plain
