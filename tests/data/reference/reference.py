#!/usr/bin/env python3
"""Reference detections that the Rust tests compare with (tests/it/accuracy.rs).

What is compared: the boxes, classes and scores that Saccade finds in a photo's YCbCr 4:2:0 planes, against those of
this program, which starts from the same planes, takes the usual road and shares no code with it:

* planes: the JPEG decoded by FFmpeg (PyAV here, ffmpeg-next in the test); full chroma is averaged over 2x2 samples
  and rounded half up on both sides.
* RGB at full size: chroma upsampled (bilinear, samples centred), converted (BT.601, full range, as JFIF says), not
  rounded to 8 bits.
* model input: `cv2.resize` with INTER_LINEAR to the rounded size, cut to 0..255, pasted into the padded input (numpy).
* inference: onnxruntime, CPU provider, fp32.
* outputs: decoded in numpy, class-aware greedy suppression, boxes mapped back by the pixels that each axis really
  got, cut at the picture's edges.

Same planes, no rounding and the cut last, because these small networks are touchy: with about 215 boxes of yolox-nano
in 53 photos, 16 are missing or extra (by 1 px or 0.01) when libjpeg decodes the photos instead of FFmpeg, 11 when RGB
is cut to 0..255 before the resize, and 19 when it is rounded to 8 bits before and after. `--eight-bits` takes that
last road.

* keypoints: of the faces that stay, mapped back as their boxes are, not cut.
* segments: the class with the largest of the logits, for each of the network's pixels; the share of the pixels and the box
  around them of each class but the background, from a share of 0.002 on.

The golden files hold file names, boxes, classes and scores, never pictures. Boxes are kept down to 0.02 below the
threshold, so that the test can let a box whose score lies within the tolerance of the threshold be on one side only.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python reference.py --assets ../../../../shared --out ../golden
"""
import argparse
import json
import pathlib

import av
import cv2
import numpy as np
import onnxruntime

HERE = pathlib.Path(__file__).resolve().parent
MARGIN = 0.02

COCO = "datasets/coco_permissive/images/*.jpg"
HELMET = "datasets/helmet/images/0000[0-3]?.jpg"

MODELS = {
    "yolox-nano": dict(
        file="models/yolox_nano_416.onnx", photos=COCO, decoder="yolox", size=(416, 416), place="top-left",
        pad=114, bgr=True, mean=0.0, scale=1.0, score=0.35, iou=0.45, classes=(HERE / "../models/yolox-nano/1/classes.txt"),
    ),
    "ultraface": dict(
        file="models/ultraface_RFB_320.onnx", photos=COCO, decoder="ssd", size=(320, 240), place="stretch",
        pad=0, bgr=False, mean=127.0, scale=1 / 128, score=0.7, iou=0.3, classes=["face"],
    ),
    "yunet": dict(
        file="models/yunet_n_320_320.onnx", photos=COCO, decoder="yunet", size=(320, 320), place="top-left",
        pad=0, bgr=True, mean=0.0, scale=1.0, score=0.5, iou=0.45, classes=["face"],
    ),
    "yunet-points": dict(
        file="models/yunet_n_320_320.onnx", photos=COCO, decoder="yunet", size=(320, 320), place="top-left",
        pad=0, bgr=True, mean=0.0, scale=1.0, score=0.5, iou=0.45, classes=["face"], points=5,
    ),
    "fastestdet": dict(
        file="models/fastestdet_352.onnx", photos=COCO, decoder="fastestdet", size=(352, 352), place="stretch",
        pad=0, bgr=True, mean=0.0, scale=1 / 255, score=0.5, iou=0.45, classes=(HERE / "../models/yolox-nano/1/classes.txt"),
    ),
    "deeplab": dict(
        file="models/deeplab_v3_mnv2_257.onnx", photos=COCO, decoder="argmax", size=(257, 257), place="stretch",
        pad=0, bgr=False, mean=127.5, scale=1 / 127.5, score=0.002, iou=0.0, nhwc=True, classes=[
            "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
            "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
        ],
    ),
    "ppe-nano": dict(
        file=HERE / "../../../models/ppe-nano/2/model.onnx", photos=HELMET, decoder="yolov8", size=(320, 320),
        place="centre", pad=114, bgr=False, mean=0.0, scale=1 / 255, score=0.5, iou=0.6, classes=["head", "helmet"],
    ),
}


def load_rgb(path, eight_bits):
    """RGB at full size as the photo's 4:2:0 planes show it."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    planes = [np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, :plane.width] for plane in frame.planes]
    y, *chroma = (plane.astype(np.float64) for plane in planes)
    if not chroma:
        return np.repeat(y[:, :, None], 3, 2).astype(np.float32)
    if chroma[0].shape == y.shape:
        chroma = [halve(plane) for plane in chroma]
    cb, cr = (upsample(plane, y.shape) - 128 for plane in chroma)
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    return np.rint(np.clip(rgb, 0, 255)).astype(np.uint8) if eight_bits else rgb.astype(np.float32)


def halve(plane):
    """Means of 2x2 samples, rounded half up; an odd last row or column counts twice."""
    plane = np.pad(plane, ((0, plane.shape[0] % 2), (0, plane.shape[1] % 2)), "edge")
    return np.floor((plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4 + 0.5)


def upsample(plane, shape):
    """Bilinear, each chroma sample in the middle of its four luma samples."""
    for axis in (0, 1):
        at = np.clip((np.arange(shape[axis]) + 0.5) / 2 - 0.5, 0, plane.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, plane.shape[axis] - 1)
        weight = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        plane = np.take(plane, low, axis) * (1 - weight) + np.take(plane, high, axis) * weight
    return plane


def prepare(rgb, model):
    """The input tensor, and scale and offset of each axis."""
    height, width = rgb.shape[:2]
    input_width, input_height = model["size"]
    if model["place"] == "stretch":
        inner_width, inner_height = input_width, input_height
    else:
        ratio = min(input_width / width, input_height / height)
        inner_width, inner_height = int(width * ratio + 0.5), int(height * ratio + 0.5)
    left = (input_width - inner_width) // 2 if model["place"] == "centre" else 0
    top = (input_height - inner_height) // 2 if model["place"] == "centre" else 0
    canvas = np.full((input_height, input_width, 3), model["pad"], np.float32)
    resized = cv2.resize(rgb, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    canvas[top:top + inner_height, left:left + inner_width] = np.clip(resized, 0, 255)
    if model["bgr"]:
        canvas = canvas[:, :, ::-1]
    tensor = (canvas - model["mean"]) * model["scale"]
    axes = (0, 1, 2) if model.get("nhwc") else (2, 0, 1)
    return np.ascontiguousarray(tensor.transpose(axes)[None], np.float32), (
        inner_width / width, inner_height / height, left, top)


def decode(outputs, model):
    """Corners in input pixels, classes, scores."""
    width, height = model["size"]
    if model["decoder"] == "yolov8":
        rows = outputs["output0"][0].T
        corners = np.hstack([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2])
        return corners, rows[:, 4:].argmax(1), rows[:, 4:].max(1)
    if model["decoder"] == "ssd":
        scores = outputs["scores"][0][:, 1]
        return outputs["boxes"][0] * [width, height, width, height], np.zeros(len(scores), int), scores
    if model["decoder"] == "yolox":
        rows = outputs["output"][0].astype(np.float64)
        cells, strides = [], []
        for stride in (8, 16, 32):
            y, x = np.mgrid[:height // stride, :width // stride]
            cells.append(np.stack([x, y], -1).reshape(-1, 2))
            strides.append(np.full((cells[-1].shape[0], 1), stride))
        cells, strides = np.concatenate(cells), np.concatenate(strides)
        centre, size = (rows[:, :2] + cells) * strides, np.exp(rows[:, 2:4]) * strides
        scores = rows[:, 5:] * rows[:, 4:5]
        return np.hstack([centre - size / 2, centre + size / 2]), scores.argmax(1), scores.max(1)
    if model["decoder"] == "fastestdet":
        planes = outputs["758"][0].astype(np.float64)
        rows, columns = planes.shape[1:]
        y, x = np.mgrid[:rows, :columns]
        centre = np.stack([(np.tanh(planes[1]) + x) / columns * width, (np.tanh(planes[2]) + y) / rows * height], -1)
        size = np.stack([width / (1 + np.exp(-planes[3])), height / (1 + np.exp(-planes[4]))], -1)
        scores = planes[0].ravel() ** 0.6 * planes[5:].max(0).ravel() ** 0.4
        corners = np.concatenate([centre - size / 2, centre + size / 2], -1).reshape(-1, 4)
        return corners, planes[5:].argmax(0).ravel(), scores
    parts = []
    for stride in (8, 16, 32):
        y, x = np.mgrid[:height // stride, :width // stride]
        cells = np.stack([x, y], -1).reshape(-1, 2)
        box = outputs[f"bbox_{stride}"][0]
        score = np.sqrt(outputs[f"cls_{stride}"][0][:, 0] * outputs[f"obj_{stride}"][0][:, 0])
        centre, size = (cells + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride
        parts.append(np.hstack([centre - size / 2, centre + size / 2, score[:, None]]))
    parts = np.concatenate(parts)
    return parts[:, :4], np.zeros(len(parts), int), parts[:, 4]


def keypoints(outputs, model):
    """Five points for each cell, in input pixels."""
    width, height = model["size"]
    parts = []
    for stride in (8, 16, 32):
        y, x = np.mgrid[:height // stride, :width // stride]
        cells = np.stack([x, y], -1).reshape(-1, 1, 2)
        parts.append((outputs[f"kps_{stride}"][0].reshape(-1, model["points"], 2) + cells) * stride)
    return np.concatenate(parts)


def segments(session, model, names, rgb):
    tensor, _ = prepare(rgb, model)
    [logits] = session.run(None, {session.get_inputs()[0].name: tensor})
    numbers = logits[0].argmax(-1)
    height, width = rgb.shape[:2]
    rows, columns = numbers.shape
    found = []
    for number, name in enumerate(names, 1):
        y, x = np.nonzero(numbers == number)
        ratio = len(y) / numbers.size
        if ratio < model["score"]:
            continue
        box = [x.min() / columns * width, y.min() / rows * height, (x.max() + 1) / columns * width, (y.max() + 1) / rows * height]
        found.append({
            "class": name, "class_id": number - 1, "area_ratio": round(ratio, 5),
            "box": [round(float(side), 2) for side in box]})
    return sorted(found, key=lambda one: -one["area_ratio"])


def suppress(corners, classes, scores, limit):
    """Indices that stay, best first."""
    kept = []
    for n in np.argsort(-scores, kind="stable"):
        a = corners[n]
        for k in kept:
            b = corners[k]
            common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
            if classes[n] == classes[k] and common > limit * union:
                break
        else:
            kept.append(n)
    return kept


def detect(session, model, names, rgb):
    tensor, (scale_x, scale_y, left, top) = prepare(rgb, model)
    found = session.run(None, {session.get_inputs()[0].name: tensor})
    outputs = dict(zip([output.name for output in session.get_outputs()], found))
    corners, classes, scores = decode(outputs, model)
    sure = scores >= model["score"] - MARGIN
    points = keypoints(outputs, model)[sure] if "points" in model else None
    corners, classes, scores = corners[sure], classes[sure], scores[sure]
    height, width = rgb.shape[:2]
    detections = []
    for n in suppress(corners, classes, scores, model["iou"]):
        box = (corners[n] - [left, top, left, top]) / [scale_x, scale_y, scale_x, scale_y]
        box = np.clip(box, 0, [width, height, width, height])
        if box[2] > box[0] and box[3] > box[1]:
            detections.append(dict(
                box=[round(float(side), 3) for side in box], **{"class": names[classes[n]]},
                class_id=int(classes[n]), score=round(float(scores[n]), 5)))
            if points is not None:
                places = (points[n] - [left, top]) / [scale_x, scale_y]
                detections[-1]["keypoints"] = [[round(float(side), 2) for side in place] for place in places]
    return detections


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", required=True, type=pathlib.Path, help="folder with models/ and datasets/")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="folder for the golden files")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all by default")
    parser.add_argument("--eight-bits", action="store_true", help="round RGB to 8 bits before and after the resize")
    arguments = parser.parse_args()
    for name in arguments.models or MODELS:
        model = MODELS[name]
        session = onnxruntime.InferenceSession(str(arguments.assets / model["file"]), providers=["CPUExecutionProvider"])
        names = model["classes"]
        names = names.read_text().split("\n")[:-1] if isinstance(names, pathlib.Path) else names
        photos = sorted(str(path.relative_to(arguments.assets)) for path in arguments.assets.glob(model["photos"]))
        golden = []
        for photo in photos:
            rgb = load_rgb(arguments.assets / photo, arguments.eight_bits)
            size = dict(photo=photo, width=rgb.shape[1], height=rgb.shape[0])
            if model["decoder"] == "argmax":
                golden.append(size | dict(segments=segments(session, model, names, rgb)))
            else:
                golden.append(size | dict(detections=detect(session, model, names, rgb)))
        lines = ",\n".join("  " + json.dumps(entry) for entry in golden)
        head = {key: model[key] for key in ("score", "iou")} | dict(margin=MARGIN)
        text = f'{{"model": "{name}", "thresholds": {json.dumps(head)}, "photos": [\n{lines}\n]}}\n'
        (arguments.out / f"{name}.json").write_text(text)
        found = sum(len(entry.get("detections") or entry.get("segments") or []) for entry in golden)
        print(name, len(golden), "photos", found, "detections or segments")


if __name__ == "__main__":
    main()
