"""Still pictures from ordinary clients: aiohttp's forms and streams, OpenCV's JPEG, PNG and WebP, curl."""

import base64
import json
import subprocess

import aiohttp
import cv2
import numpy as np
import pytest
from scene import Scene
from server import Server

# The frame that is sent: people are in it.
NUMBER = 60


@pytest.fixture(scope="module")
def picture(scene: Scene) -> np.ndarray:
    return cv2.cvtColor(scene.frames[NUMBER], cv2.COLOR_YUV2BGR_I420)


def encode(picture: np.ndarray, ending: str, *parameters: int) -> bytes:
    done, encoded = cv2.imencode(ending, picture, parameters)
    assert done
    return encoded.tobytes()


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = np.prod(np.clip(high - low, 0, None))
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def check(scene: Scene, told: dict) -> None:
    """Most heads are where they are, and hardly anything is found elsewhere."""
    assert told["type"] == "result" and told["version"] == 1, told
    assert (told["width"], told["height"]) == (scene.width, scene.height)
    boxes = [(np.array(it["box"]), it["class_id"]) for it in told["detections"]]
    heads = scene.heads(NUMBER)
    found = [any(of == kind and overlap(box, head) > 0.6 for box, of in boxes) for head, kind in heads]
    assert len(heads) > 2 and sum(found) >= 0.7 * len(heads), (heads, boxes)
    assert len(boxes) <= len(heads) + 2, (heads, boxes)


@pytest.mark.parametrize(
    ("ending", "kind", "parameters"),
    [
        (".jpg", "image/jpeg", ()),
        (".jpg", "image/jpeg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".jpg", "image/jpeg", (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)),
        (".jpg", "image/jpeg", (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422)),
        (".jpg", "image/jpeg", (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411)),
        (".jpg", "image/jpeg", (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440)),
        (".jpg", "image/jpeg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 5)),
        (".png", "image/png", ()),
        (".webp", "image/webp", (cv2.IMWRITE_WEBP_QUALITY, 90)),
        (".webp", "image/webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
    ],
)
async def test_pictures_of_other_encoders_are_read(
    http: aiohttp.ClientSession,
    server: Server,
    scene: Scene,
    picture: np.ndarray,
    ending: str,
    kind: str,
    parameters: tuple[int, ...],
) -> None:
    body = encode(picture, ending, *parameters)
    async with http.post(f"{server.url}/v1/detect", data=body, headers={"content-type": kind}) as answer:
        assert answer.status == 200, await answer.text()
        check(scene, await answer.json())


async def test_grey_pictures_and_those_with_more_bits_are_read(
    http: aiohttp.ClientSession, server: Server, picture: np.ndarray
) -> None:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    for body in (encode(grey, ".jpg"), encode(grey, ".png"), encode(picture.astype(np.uint16) * 257, ".png")):
        async with http.post(f"{server.url}/v1/detect", data=body, headers={"content-type": "image/png"}) as answer:
            told = await answer.json()
            assert (answer.status, told["width"], told["height"]) == (200, picture.shape[1], picture.shape[0]), told


async def test_a_form_of_pictures_is_answered_in_its_order(
    http: aiohttp.ClientSession, server: Server, scene: Scene, picture: np.ndarray
) -> None:
    form = aiohttp.FormData()
    form.add_field("image", encode(picture, ".jpg"), filename="a.jpg", content_type="image/jpeg")
    form.add_field("image", b"a note", filename="b.txt", content_type="text/plain")
    form.add_field("image", encode(picture, ".png"), filename="c.png", content_type="image/png")
    async with http.post(f"{server.url}/v1/detect?annotate=jpeg", data=form) as answer:
        assert answer.status == 200 and answer.headers["content-encoding"] in ("gzip", "br", "zstd")
        first, bad, last = await answer.json()
    assert [it["name"] for it in (first, bad, last)] == ["a.jpg", "b.txt", "c.png"]
    assert (bad["type"], bad["code"], bad["status"]) == ("error", "unsupported_type", 415)
    for told in (first, last):
        check(scene, told)
        head, data = told["annotated"].split(",")
        assert head == "data:image/jpeg;base64"
        drawn = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert drawn.shape == picture.shape
        left, top, right, _ = told["detections"][0]["box"]
        column = int((left + right) / 2)
        rows = slice(max(0, int(top) - 3), int(top) + 4)
        assert np.abs(drawn[rows, column].astype(int) - picture[rows, column]).max() > 30, "the box is drawn"


async def test_events_come_one_for_each_picture(
    http: aiohttp.ClientSession, server: Server, scene: Scene, picture: np.ndarray
) -> None:
    form = aiohttp.FormData()
    for number in range(3):
        form.add_field("image", encode(picture, ".jpg"), filename=f"{number}.jpg", content_type="image/jpeg")
    headers = {"accept": "text/event-stream"}
    async with http.post(f"{server.url}/v1/detect", data=form, headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        lines = [line.decode() async for line in answer.content]
    events = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]
    assert sorted(it["image"] for it in events) == [0, 1, 2]
    for told in events:
        check(scene, told)


def test_curl_sends_files_and_gets_pictures(
    server: Server, scene: Scene, picture: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("stills")
    (folder / "a.jpg").write_bytes(encode(picture, ".jpg"))

    def curl(*words: str) -> bytes:
        command = ["curl", "--silent", "--show-error", "--max-time", "20", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=30).stdout

    url = f"{server.url}/v1/detect"
    check(scene, json.loads(curl("--data-binary", "@a.jpg", "--header", "content-type: image/jpeg", url)))
    for told in json.loads(curl("--form", "image=@a.jpg", "--form", "image=@a.jpg", "--compressed", url)):
        check(scene, told)
    drawn = curl("--data-binary", "@a.jpg", "--header", "content-type: image/jpeg", f"{url}?annotate=png")
    assert cv2.imdecode(np.frombuffer(drawn, np.uint8), cv2.IMREAD_COLOR).shape == picture.shape
    # A plain `--data-binary` says that it sends a form.
    assert json.loads(curl("--data-binary", "@a.jpg", url))["code"] == "unsupported_type"
