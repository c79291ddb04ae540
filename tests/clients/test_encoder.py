"""An encoder that nobody here wrote, GStreamer's, publishes by WHIP; a browser's stand-in watches it by WHEP."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from feed import LIMIT
from server import Server
from test_whep import viewers

ENCODER = Path(__file__).with_name("encoder.py")
# The one that the distribution's packages are for.
PYTHON = "/usr/bin/python3"


@pytest.mark.parametrize("codec", ["H264", "VP8"])
async def test_gstreamer_publishes_and_is_watched(server: Server, http: aiohttp.ClientSession, codec: str) -> None:
    process = await asyncio.create_subprocess_exec(
        PYTHON, "-B", str(ENCODER), f"{server.url}/v1/whip?budget_ms=1900", codec, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(LIMIT):
            resource = (await process.stdout.readline()).decode().strip()
        session = resource.rsplit("/", 1)[1]
        assert resource == f"{server.url}/v1/sessions/{session}"
        results = []
        async with asyncio.timeout(LIMIT), http.get(f"{resource}/results") as stream:
            async for line in stream.content:
                if line.startswith(b"data: "):
                    results.append(json.loads(line[6:]))
                if len(results) == 10:
                    break
        assert {(it["width"], it["height"], it["budget_ms"]) for it in results} == {(320, 240, 1900)}
        async with http.get(resource) as answer:
            view = await answer.json()
        assert (view["codec"], view["state"], view["counters"]["returned"]) == (codec, "connected", 0)

        async with viewers(1, codec) as [viewer]:
            await viewer.join(http, server, session)
            await viewer.pictures.more(10, "pictures of the encoder's video")
            assert viewer.pictures[-1].shape == (360, 320)
        async with http.delete(resource) as answer:
            assert answer.status == 200
    finally:
        process.kill()
        await process.wait()
