"""The Open Inference Protocol with Triton's own clients, over HTTP and gRPC, compared with ONNX Runtime in Python."""

import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
from server import ROOT, Server, command
from test_door import certify
from tritonclient.utils import InferenceServerException

HTTP, GRPC = tritonclient.http, tritonclient.grpc
ASSETS = Path(os.environ.get("SACCADE_TEST_ASSETS", ROOT.parent / "shared"))
YOLOX = ASSETS / "models/yolox_nano_416.onnx"
SECRET = "a secret of at least thirty-two bytes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder: the scene's model, which takes batches, and yolox-nano where it is there."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "models/scene-blobs", folder / "scene-blobs")
    if YOLOX.exists():
        shutil.copytree(ROOT / "tests/data/models/yolox-nano", folder / "yolox-nano")
        shutil.copy(YOLOX, folder / "yolox-nano/1/model.onnx")
    return folder


def grpc_address(server: Server) -> str:
    return re.search(r"grpc\.listen\"? address=(\S+)", server.said()).group(1)


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[Server]:
    server = Server(models__dir=folder, grpc__listen="127.0.0.1:0", shutdown__grace_ms=500)
    yield server
    server.stop()


@pytest.fixture(params=[HTTP, GRPC], ids=["http", "grpc"])
def api(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def client(api: ModuleType, backend: Server) -> Iterator[object]:
    address = backend.url.removeprefix("http://") if api is HTTP else grpc_address(backend)
    with api.InferenceServerClient(address) as client:
        yield client


def graph(folder: Path, name: str) -> onnxruntime.InferenceSession:
    path = folder / name / "1/model.onnx"
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"there is no {path}")
        pytest.skip(f"there is no {path}: set SACCADE_TEST_ASSETS")
    return onnxruntime.InferenceSession(path)


def shape_of(outlet: onnxruntime.NodeArg) -> list[int]:
    return [side if isinstance(side, int) else -1 for side in outlet.shape]


def tensor(api: ModuleType, name: str, values: np.ndarray, datatype: str = "FP32", **how: bool) -> object:
    tensor = api.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, **how)
    return tensor


def pictures(session: onnxruntime.InferenceSession, count: int, scale: float) -> np.ndarray:
    shape = [count, *session.get_inputs()[0].shape[1:]]
    return (np.random.default_rng(7).random(shape) * scale).astype(np.float32)


def as_dict(answer: object) -> dict:
    """An answer of either client; gRPC's writes whole numbers of 64 bits as strings in JSON."""
    if isinstance(answer, (dict, list)):
        return answer
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(answer, preserving_proto_field_name=True)


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# --- what there is ---


def test_the_server_and_its_models_are_ready(client: object) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("scene-blobs") and client.is_model_ready("scene-blobs", "1")
    metadata = as_dict(client.get_server_metadata())
    assert metadata["name"] == "saccade" and "binary_tensor_data" in metadata["extensions"]


def test_metadata_and_configuration_are_those_of_the_file(client: object, folder: Path) -> None:
    session = graph(folder, "scene-blobs")
    [input], [output] = session.get_inputs(), session.get_outputs()
    metadata = as_dict(client.get_model_metadata("scene-blobs"))
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("scene-blobs", ["1"], "onnxruntime_onnx")
    for found, expected in ((metadata["inputs"], input), (metadata["outputs"], output)):
        [found] = found
        assert (found["name"], found["datatype"]) == (expected.name, "FP32")
        assert [int(side) for side in found["shape"]] == shape_of(expected)
    config = as_dict(client.get_model_config("scene-blobs"))
    config = config.get("config", config)
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("scene-blobs", "onnxruntime_onnx", 8)
    for found, expected in ((config["input"], input), (config["output"], output)):
        [found] = found
        assert (found["name"], found["data_type"]) == (expected.name, "TYPE_FP32")
        assert [int(side) for side in found["dims"]] == shape_of(expected)[1:]


def test_the_index_lists_what_is_loaded(client: object) -> None:
    index = as_dict(client.get_model_repository_index())
    models = index["models"] if isinstance(index, dict) else index
    states = {(it["name"], it["version"]): it["state"] for it in models}
    assert states[("scene-blobs", "1")] == "READY"


# --- running models ---


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("binary", [True, False])
def test_a_batch_gives_what_onnx_runtime_gives(
    client: object, api: ModuleType, folder: Path, count: int, binary: bool
) -> None:
    if api is GRPC and not binary:
        pytest.skip("gRPC has no JSON")
    session = graph(folder, "scene-blobs")
    images = pictures(session, count, 1.0)
    how = {"binary_data": binary} if api is HTTP else {}
    output = session.get_outputs()[0].name
    asked = [api.InferRequestedOutput(output, **how)]
    answer = client.infer("scene-blobs", [tensor(api, "images", images, **how)], outputs=asked, request_id="77")
    same(answer.as_numpy(output), session.run([output], {"images": images})[0])
    response = as_dict(answer.get_response())
    assert (response["model_name"], response["model_version"], response["id"]) == ("scene-blobs", "1", "77")


def test_yolox_gives_what_onnx_runtime_gives(client: object, api: ModuleType, folder: Path) -> None:
    session = graph(folder, "yolox-nano")
    images = pictures(session, 1, 255.0)
    answer = client.infer("yolox-nano", [tensor(api, "images", images)], model_version="1")
    [output] = session.get_outputs()
    same(answer.as_numpy(output.name), session.run(None, {"images": images})[0])


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_may_be_compressed(backend: Server, folder: Path, algorithm: str) -> None:
    session = graph(folder, "scene-blobs")
    images = pictures(session, 1, 1.0)
    with HTTP.InferenceServerClient(backend.url.removeprefix("http://")) as client:
        answer = client.infer(
            "scene-blobs",
            [tensor(HTTP, "images", images)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
    [output] = session.get_outputs()
    same(answer.as_numpy(output.name), session.run(None, {"images": images})[0])


def test_requests_side_by_side_get_their_own_answers(client: object, api: ModuleType, folder: Path) -> None:
    session = graph(folder, "scene-blobs")
    [output] = session.get_outputs()
    images = pictures(session, 8, 1.0)
    if api is HTTP:
        pending = [client.async_infer("scene-blobs", [tensor(api, "images", images[at : at + 1])]) for at in range(8)]
        answers = [it.get_result() for it in pending]
    else:
        import concurrent.futures

        ask = lambda at: client.infer("scene-blobs", [tensor(api, "images", images[at : at + 1])])  # noqa: E731
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
    expected = session.run(None, {"images": images})[0]
    for at, answer in enumerate(answers):
        same(answer.as_numpy(output.name), expected[at : at + 1])


def test_a_stream_answers_each_request(backend: Server, folder: Path) -> None:
    import queue

    session = graph(folder, "scene-blobs")
    [output] = session.get_outputs()
    answers: queue.Queue = queue.Queue()
    with GRPC.InferenceServerClient(grpc_address(backend)) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        images = pictures(session, 1, 1.0)
        client.async_stream_infer("scene-blobs", [tensor(GRPC, "images", images)])
        client.async_stream_infer("nobody", [tensor(GRPC, "images", images)])
        client.async_stream_infer("scene-blobs", [tensor(GRPC, "images", images)])
        first, second, third = (answers.get(timeout=30) for _ in range(3))
        client.stop_stream()
    for result, error in (first, third):
        assert error is None
        same(result.as_numpy(output.name), session.run(None, {"images": images})[0])
    assert second[0] is None and "there is no model `nobody`" in str(second[1])


def test_statistics_count_requests_runs_and_items(client: object, api: ModuleType, folder: Path) -> None:
    def statistics() -> dict:
        [found] = as_dict(client.get_inference_statistics("scene-blobs"))["model_stats"]
        return found

    client.infer("scene-blobs", [tensor(api, "images", pictures(graph(folder, "scene-blobs"), 1, 1.0))])
    before = statistics()
    client.infer("scene-blobs", [tensor(api, "images", pictures(graph(folder, "scene-blobs"), 3, 1.0))])
    after = statistics()
    assert int(after["inference_count"]) == int(before["inference_count"]) + 3
    assert int(after["execution_count"]) == int(before["execution_count"]) + 1
    spent = after["inference_stats"]
    assert int(spent["success"]["count"]) == int(before["inference_stats"]["success"]["count"]) + 1
    assert int(spent["compute_infer"]["ns"]) > int(before["inference_stats"]["compute_infer"]["ns"])
    assert 3 in [int(it["batch_size"]) for it in after["batch_stats"]]
    assert int(after["last_inference"]) > 1.6e12


# --- loading ---


def test_models_are_unloaded_and_loaded_again(client: object, api: ModuleType, folder: Path) -> None:
    if not (folder / "yolox-nano/1/model.onnx").exists():
        graph(folder, "yolox-nano")
    client.unload_model("yolox-nano")
    with pytest.raises(InferenceServerException):
        client.get_model_metadata("yolox-nano")
    client.load_model("yolox-nano")
    assert client.is_model_ready("yolox-nano")
    assert as_dict(client.get_model_metadata("yolox-nano"))["versions"] == ["1"]
    for act, model, status in (
        (client.load_model, "nobody", "404|NOT_FOUND"),
        (client.unload_model, "nobody", "404|NOT_FOUND"),
        (client.unload_model, "scene-blobs", "409|FAILED_PRECONDITION"),
    ):
        with pytest.raises(InferenceServerException) as refused:
            act(model)
        assert re.search(status, str(refused.value.status())), refused.value


# --- what is refused ---


@pytest.mark.parametrize(
    ("model", "name", "values", "datatype", "says"),
    [
        ("nobody", "images", np.zeros((1, 3, 320, 320), np.float32), "FP32", "there is no model `nobody`"),
        ("scene-blobs", "pictures", np.zeros((1, 3, 320, 320), np.float32), "FP32", "`pictures` is none of the model's"),
        ("scene-blobs", "images", np.zeros((1, 3, 32, 320), np.float32), "FP32", "[1, 3, 32, 320] was sent"),
        ("scene-blobs", "images", np.zeros((1, 3, 320, 320), np.int32), "INT32", "INT32 [1, 3, 320, 320] was sent"),
        ("scene-blobs", "images", np.zeros((9, 3, 320, 320), np.float32), "FP32", "1 to 8 items at a time"),
    ],
)
def test_what_the_model_does_not_take_is_refused(
    client: object, api: ModuleType, model: str, name: str, values: np.ndarray, datatype: str, says: str
) -> None:
    with pytest.raises(InferenceServerException) as refused:
        client.infer(model, [tensor(api, name, values, datatype)])
    assert says in str(refused.value).replace("There", "there")
    assert client.is_server_ready()


def test_too_much_is_refused(client: object, api: ModuleType) -> None:
    with pytest.raises(InferenceServerException) as refused:
        client.infer("scene-blobs", [tensor(api, "images", np.zeros((60, 3, 320, 320), np.float32))])
    assert re.search(r"413|OUT_OF_RANGE|RESOURCE_EXHAUSTED", str(refused.value.status())), refused.value
    assert client.is_server_ready()


def test_a_timeout_that_nobody_can_keep_is_one(client: object, api: ModuleType, folder: Path) -> None:
    images = pictures(graph(folder, "scene-blobs"), 8, 1.0)
    with pytest.raises(InferenceServerException) as late:
        client.infer("scene-blobs", [tensor(api, "images", images)], timeout=1)
    assert re.search("504|DEADLINE_EXCEEDED", str(late.value.status())), late.value


# --- who may ---


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Server]:
    server = Server(models__dir=folder, grpc__listen="127.0.0.1:0", auth__secret=SECRET, shutdown__grace_ms=500)
    yield server
    server.stop()


def bearer(*words: str) -> dict[str, str]:
    made = command("token", "--ttl", "5m", *words, SACCADE_AUTH__SECRET=SECRET)
    assert made.returncode == 0, made.stderr
    return {"authorization": f"Bearer {made.stdout.strip()}"}


def test_tokens_say_who_may_do_what(api: ModuleType, guarded: Server, folder: Path) -> None:
    address = guarded.url.removeprefix("http://") if api is HTTP else grpc_address(guarded)
    images = pictures(graph(folder, "scene-blobs"), 1, 1.0)
    publisher, viewer = bearer("--can-publish"), bearer("--can-view")
    with api.InferenceServerClient(address) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException) as refused:
            client.get_model_metadata("scene-blobs")
        assert re.search("401|UNAUTHENTICATED", str(refused.value.status()))
        assert as_dict(client.get_model_metadata("scene-blobs", headers=viewer))["name"] == "scene-blobs"
        with pytest.raises(InferenceServerException) as refused:
            client.infer("scene-blobs", [tensor(api, "images", images)], headers=viewer)
        assert re.search("403|PERMISSION_DENIED", str(refused.value.status()))
        assert "can_publish" in str(refused.value)
        assert client.infer("scene-blobs", [tensor(api, "images", images)], headers=publisher) is not None
        with pytest.raises(InferenceServerException) as refused:
            client.unload_model("scene-blobs", headers=publisher)
        assert "can_manage_models" in str(refused.value)


def test_grpc_has_the_certificate_of_https(folder: Path, tmp_path: Path) -> None:
    certify(tmp_path)
    tls = {"http__tls_cert": tmp_path / "cert.pem", "http__tls_key": tmp_path / "key.pem"}
    server = Server(models__dir=folder, grpc__listen="127.0.0.1:0", shutdown__grace_ms=500, **tls)
    try:
        address = grpc_address(server).replace("127.0.0.1", "localhost")
        trusting = {"ssl": True, "root_certificates": str(tmp_path / "cert.pem")}
        images = pictures(graph(folder, "scene-blobs"), 1, 1.0)
        with GRPC.InferenceServerClient(address, **trusting) as client:
            assert client.is_server_ready()
            assert client.infer("scene-blobs", [tensor(GRPC, "images", images)]) is not None
        with GRPC.InferenceServerClient(address) as client, pytest.raises(InferenceServerException):
            client.is_server_ready(client_timeout=5)
    finally:
        server.stop()


@pytest.mark.parametrize("path", ["repository/index", "repository/models/scene-blobs/load", "models/scene-blobs/infer"])
@pytest.mark.parametrize("body", ["[]", "[true]", "7", "null"])
def test_a_body_that_is_no_object_is_refused(backend: Server, path: str, body: str) -> None:
    request = urllib.request.Request(f"{backend.url}/v2/{path}", body.encode(), {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    told = json.loads(refused.value.read())
    assert (refused.value.code, told["code"]) == (400, "bad_request") and "object" in told["error"], told
