"""Profiles on the operators' listener, read with protobuf's and XML's own libraries."""

import asyncio
import gzip
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from peer import Peer, connect
from server import Server

# What is read here of google/pprof's profile.proto: messages with the number, type and name of their fields.
PROFILE = {
    "ValueType": [(1, "int64", "type"), (2, "int64", "unit")],
    "Label": [(1, "int64", "key"), (2, "int64", "str")],
    "Sample": [(1, "*uint64", "location_id"), (2, "*int64", "value"), (3, "*Label", "label")],
    "Line": [(1, "uint64", "function_id"), (2, "int64", "line")],
    "Location": [(1, "uint64", "id"), (4, "*Line", "line")],
    "Function": [(1, "uint64", "id"), (2, "int64", "name"), (4, "int64", "filename")],
    "Profile": [
        (1, "*ValueType", "sample_type"),
        (2, "*Sample", "sample"),
        (4, "*Location", "location"),
        (5, "*Function", "function"),
        (6, "*string", "string_table"),
        (9, "int64", "time_nanos"),
        (10, "int64", "duration_nanos"),
        (12, "int64", "period"),
    ],
}


def profile_type():
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package="perftools.profiles", syntax="proto3")
    for name, fields in PROFILE.items():
        message = file.message_type.add(name=name)
        for number, kind, field in fields:
            plain = kind.lstrip("*")
            added = message.field.add(name=field, number=number, label=3 if kind.startswith("*") else 1)
            scalar = {"int64": 3, "uint64": 4, "string": 9}.get(plain)
            added.type = scalar or 11
            if not scalar:
                added.type_name = f".perftools.profiles.{plain}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("perftools.profiles.Profile"))


@pytest.fixture(scope="module")
def profiled() -> Iterator[Server]:
    server = Server(ops__profiles="true", shutdown__grace_ms=500)
    yield server
    server.stop()


async def test_a_profile_of_a_live_session_names_what_works(profiled: Server, http, scene) -> None:
    async with Peer(scene, fps=15) as peer:
        await connect(http, profiled.url, peer)
        await peer.results.more(5, "results")
        async with http.get(f"{profiled.ops}/debug/pprof/profile?seconds=3", timeout=None) as answer:
            assert answer.status == 200, await answer.text()
            body = await answer.read()
        await peer.results.more(10, "results after the profile")
    profile = profile_type().FromString(gzip.decompress(body))
    text = list(profile.string_table)
    assert text[0] == "" and len(set(text)) == len(text)
    assert [(text[it.type], text[it.unit]) for it in profile.sample_type] == [("samples", "count"), ("cpu", "nanoseconds")]
    assert 3e9 <= profile.duration_nanos < 30e9
    functions = {it.id: text[it.name] for it in profile.function}
    lines = {it.id: functions[it.line[0].function_id] for it in profile.location}
    samples, names, threads = 0, set(), set()
    for sample in profile.sample:
        samples += sample.value[0]
        assert sample.value[1] == sample.value[0] * profile.period
        names |= {lines[it] for it in sample.location_id}
        threads |= {text[it.str] for it in sample.label if text[it.key] == "thread"}
    assert samples >= 10, "a live session takes more of a processor than that"
    assert any("saccade::pipeline" in it for it in names), sorted(names)[:50]
    assert len(threads) >= 2, threads


async def test_a_flame_graph_is_a_picture(profiled: Server, http, scene) -> None:
    async with Peer(scene, fps=15) as peer:
        await connect(http, profiled.url, peer, {"return": "results"})
        await peer.results.more(3, "results")
        async with http.get(f"{profiled.ops}/debug/flamegraph?seconds=2", timeout=None) as answer:
            assert (answer.status, answer.content_type) == (200, "image/svg+xml")
            root = ElementTree.fromstring(await answer.text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    titles = [it.text for it in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0].startswith("all: ") and any("saccade" in it for it in titles)


async def test_one_is_made_at_a_time_and_no_longer_than_a_minute(profiled: Server, http) -> None:
    long = lambda: asyncio.ensure_future(http.get(f"{profiled.ops}/debug/pprof/profile?seconds=60", timeout=None))
    first = long()
    async with asyncio.timeout(20):
        while True:
            # The short one may have come before it.
            first = long() if first.done() else first
            async with http.get(f"{profiled.ops}/debug/flamegraph?seconds=1", timeout=None) as answer:
                if answer.status == 409:
                    assert (await answer.json())["code"] == "conflict" and int(answer.headers["Retry-After"]) > 0
                    break
    # Whoever goes away makes room.
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    async with asyncio.timeout(20):
        while True:
            async with http.get(f"{profiled.ops}/debug/flamegraph?seconds=1", timeout=None) as answer:
                if answer.status == 200:
                    break
                await asyncio.sleep(0.1)
    for query in ("seconds=0", "seconds=61", "seconds=ten", "minutes=1"):
        async with http.get(f"{profiled.ops}/debug/pprof/profile?{query}") as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, "bad_request"), query


async def test_memory_is_what_the_kernel_says(profiled: Server, http) -> None:
    async with http.get(f"{profiled.ops}/debug/memory") as answer:
        memory = await answer.json()
    with open(f"/proc/{profiled.process.pid}/status") as status:
        resident = next(int(it.split()[1]) * 1024 for it in status if it.startswith("VmRSS"))
    assert memory["resident_bytes"] == pytest.approx(resident, rel=0.2)
    assert memory["peak_resident_bytes"] >= 0.9 * memory["resident_bytes"]
    kinds = {it["of"]: it["resident_bytes"] for it in memory["mappings"]}
    assert "heap" in kinds and any("onnxruntime" in it for it in kinds)
    assert not any("/" in it for it in kinds), "folders are nobody's business"


async def test_none_is_made_where_nobody_asked_for_them(server: Server, http) -> None:
    for path in ("/debug/flamegraph", "/debug/pprof/profile", "/debug/memory"):
        async with http.get(f"{server.ops}{path}") as answer:
            assert answer.status == 404
        async with http.get(f"{server.url}{path}") as answer:
            assert answer.status == 404
