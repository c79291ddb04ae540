"""History as analysts take it away: CSV and Parquet, read back by readers that nobody here wrote."""

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pyarrow.parquet
import pytest_asyncio
from peer import Peer, connect
from scene import Scene
from server import Server

WHOLE = [[0, 0], [1, 0], [1, 1], [0, 1]]
ZONE = '=HYPERLINK("evil"), "door"'


@pytest_asyncio.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that keeps history in a file of the test's own."""
    server = Server(store__url=f"sqlite://{tmp_path}/history.db")
    yield server
    server.stop()


async def fetch(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


async def test_events_are_read_back_from_csv_and_parquet(http: aiohttp.ClientSession, keeper: Server, scene: Scene) -> None:
    begin = int(time.time() * 1000)
    async with Peer(scene, "VP8") as peer:
        options = {"return": "results", "zones": [{"name": ZONE, "polygon": WHOLE}]}
        session = await connect(http, keeper.url, peer, options)
        await peer.results.more(20, "results")
        limit = time.monotonic() + 30
        entered: list = []
        while not entered:
            assert time.monotonic() < limit, "no event was kept"
            page = json.loads(await fetch(http, f"{keeper.url}/v1/events?session={session}&type=zone_entered"))
            entered = page["events"]
            await asyncio.sleep(0.1)
    query = f"{keeper.url}/v1/events?session={session}&order=asc&to={entered[0]['time_ms'] + 1}"
    told = json.loads(await fetch(http, f"{query}&limit=1000"))["events"]
    assert any(it["event"].get("zone") == ZONE for it in told)

    text = (await fetch(http, f"{query}&format=csv")).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["id"] for row in rows] == [it["id"] for it in told]
    assert [json.loads(row["event"]) for row in rows] == [it["event"] for it in told]
    # No field begins as a formula does.
    assert {row["zone"] for row in rows} <= {"", "'" + ZONE}

    table = pyarrow.parquet.read_table(io.BytesIO(await fetch(http, f"{query}&format=parquet")))
    kept = table.to_pylist()
    assert [row["id"] for row in kept] == [it["id"] for it in told]
    assert [json.loads(row["event"]) for row in kept] == [it["event"] for it in told]
    assert {row["zone"] for row in kept} <= {None, ZONE}
    assert [int(row["time"].timestamp() * 1000 + 0.5) for row in kept] == [it["time_ms"] for it in told]
    assert all(begin <= it["time_ms"] for it in told) and str(table.schema.field("time").type) == "timestamp[ms, tz=UTC]"


async def test_figures_are_read_back_from_csv_and_parquet(http: aiohttp.ClientSession, keeper: Server, scene: Scene) -> None:
    async with Peer(scene, "VP8") as peer:
        session = await connect(http, keeper.url, peer, {"return": "results"})
        await peer.results.more(20, "results")
        async with http.delete(f"{keeper.url}/v1/sessions/{session}") as answer:
            assert answer.status == 200
    limit = time.monotonic() + 30
    url = f"{keeper.url}/v1/stats?session={session}&step=1d&group=model"
    points: list = []
    while not points:
        assert time.monotonic() < limit, "no minute was kept"
        points = json.loads(await fetch(http, url))["points"]
        await asyncio.sleep(0.1)
    point = points[0]
    assert point["group"] == "scene-blobs@1" and point["results"] >= 20 and point["frames"] >= point["results"]
    row = list(csv.DictReader(io.StringIO((await fetch(http, f"{url}&format=csv")).decode(), newline="")))[0]
    kept = pyarrow.parquet.read_table(io.BytesIO(await fetch(http, f"{url}&format=parquet"))).to_pylist()[0]
    for name in ("results", "frames", "met", "objects", "alerts"):
        assert int(row[name]) == kept[name] == point[name], name
    for share in ("p50", "p95"):
        assert float(row[f"latency_{share}_ms"]) == kept[f"latency_{share}_ms"] == point["latency_ms"][share]
    assert json.loads(row["detections"]) == json.loads(kept["detections"]) == point["detections"]
