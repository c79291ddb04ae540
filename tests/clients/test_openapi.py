"""The description of the API: valid for those who wrote the standard's validator, and true of what the server answers."""

import json
from pathlib import Path

import aiohttp
import cv2
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from peer import Peer, connect
from scene import Scene
from server import ROOT, Server

MODEL = "scene-blobs"


def jpeg(scene: Scene) -> bytes:
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(scene.frames[0], cv2.COLOR_YUV2BGR_I420))
    assert done
    return encoded.tobytes()


async def description(http: aiohttp.ClientSession, server: Server) -> dict:
    async with http.get(f"{server.url}/v1/openapi.json") as answer:
        assert answer.status == 200
        return await answer.json()


async def test_the_description_is_valid_and_the_committed_one(http: aiohttp.ClientSession, server: Server) -> None:
    document = await description(http, server)
    OpenAPIV31SpecValidator(document).validate()
    assert document == json.loads(Path(ROOT, "docs/openapi.json").read_text())


async def test_answers_are_as_described(http: aiohttp.ClientSession, server: Server, scene: Scene) -> None:
    document = await description(http, server)
    seen = set()

    async def check(method: str, path: str, status: int = 200, query: str = "", **request: object) -> object:
        url = path.format(id=session, name=MODEL, model=MODEL, version="1")
        async with http.request(method, f"{server.url}{url}{query}", **request) as answer:
            assert answer.status == status, await answer.text()
            kind, body = answer.content_type, json.loads(await answer.text())
        response = document["paths"][path][method.lower()]["responses"][str(status)]
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
        schema = response["content"][kind]["schema"] | {"components": document["components"]}
        Draft202012Validator(schema).validate(body)
        seen.add((path, status))
        return body

    async with Peer(scene, "VP8", fps=10) as peer:
        session = await connect(http, server.url, peer, {"return": "results", "model": MODEL})
        await peer.results.more(5, "results")
        for path in ["/v1/sessions", "/v1/sessions/{id}", "/v1/cameras", "/v1/sinks", "/v1/models", "/v1/routes"]:
            await check("GET", path)
        assert (await check("GET", "/v1/models", query="?all=true"))[0]["name"]
    await check("PUT", "/v1/routes/{name}", 400, json={"split": [], "ensemble": []})
    await check("GET", "/v1/events", 404)
    picture = {"data": jpeg(scene), "headers": {"content-type": "image/jpeg"}}
    for options in ["", "&format=coco", "&format=roboflow", "&format=supervision"]:
        await check("POST", "/v1/detect", query=f"?model={MODEL}{options}", **picture)
    await check("POST", "/v1/detect", 422, query="?colour=red", **picture)
    form = aiohttp.FormData()
    form.add_field("picture", jpeg(scene), content_type="image/jpeg")
    form.add_field("other", b"none", content_type="text/plain")
    assert len(await check("POST", "/v1/detect", data=form)) == 2
    await check("DELETE", "/v1/cache", query=f"?model={MODEL}")
    await check("POST", "/v1/models/{name}/load", 415, data="{}")
    for path in ["/v2", "/v2/models/stats"] + [
        f"/v2/models/{{model}}{version}{what}" for version in ["", "/versions/{version}"] for what in ["", "/config", "/stats"]
    ]:
        await check("GET", path)
    await check("POST", "/v2/repository/index")
    await check("POST", "/v2/models/{model}/infer", 400, json={"inputs": []})
    model = await check("GET", "/v2/models/{model}")
    shape = [side if side > 0 else 1 for side in model["inputs"][0]["shape"]]
    tensor = {"name": model["inputs"][0]["name"], "shape": shape, "datatype": model["inputs"][0]["datatype"]}
    size = 1
    for side in shape:
        size *= side
    await check("POST", "/v2/models/{model}/infer", json={"id": "7", "inputs": [tensor | {"data": [0] * size}]})
    assert len(seen) > 20
