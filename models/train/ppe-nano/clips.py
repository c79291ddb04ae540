#!/usr/bin/env python3
"""Holds ppe-nano against two other networks on videos of bare-headed people.

For every face that YuNet is sure of, a head must be found: its box contains the face's centre and overlaps the face
box, enlarged 1.6 times about its centre, with an IoU of at least 0.3. And what is found must touch a person that
YOLOX-nano sees. All three run through `saccade detect`.

    python clips.py --saccade target/release/saccade --assets ../../../../shared --models-dir ../.. --model ppe-nano
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import tempfile

CLIPS = ["webcam_signer_640x480.mp4", "two_faces_480x270.mp4"]
MANIFESTS = pathlib.Path(__file__).resolve().parents[3] / "tests/data/models"
PEERS = {"yunet": "yunet_n_320_320.onnx", "yolox-nano": "yolox_nano_416.onnx"}
SURE_FACE, ENLARGED, MIN_IOU = 0.8, 1.6, 0.3


def detect(saccade, clip, model, models_dir, *words):
    """Detections of each frame as (class, box)."""
    command = [saccade, "detect", clip, "--quiet", "--model", model, "--models-dir", models_dir, "--json", "-", *words]
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    return [[(found["class"], found["box"]) for found in frame["detections"]] for frame in frames]


def overlap(a, b):
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, across) * max(0.0, down)


def iou(a, b):
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    return overlap(a, b) / (area(a) + area(b) - overlap(a, b))


def enlarged(box):
    x, y, width, height = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]
    return [x - width * ENLARGED / 2, y - height * ENLARGED / 2, x + width * ENLARGED / 2, y + height * ENLARGED / 2]


def covers(head, face):
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    return head[0] <= x <= head[2] and head[1] <= y <= head[3] and iou(head, enlarged(face)) >= MIN_IOU


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saccade", required=True, type=pathlib.Path, help="the program")
    parser.add_argument("--assets", required=True, type=pathlib.Path, help="folder with models/ and clips/")
    parser.add_argument("--models-dir", required=True, type=pathlib.Path)
    parser.add_argument("--model", default="ppe-nano")
    parser.add_argument("--score-threshold", help="instead of the manifest's")
    arguments = parser.parse_args()
    threshold = ["--score-threshold", arguments.score_threshold] if arguments.score_threshold else []
    with tempfile.TemporaryDirectory() as peers:
        for name, file in PEERS.items():
            shutil.copytree(MANIFESTS / name, pathlib.Path(peers) / name)
            shutil.copy(arguments.assets / "models" / file, pathlib.Path(peers) / name / "1" / "model.onnx")
        for name in CLIPS:
            clip = arguments.assets / "clips" / name
            own = detect(arguments.saccade, clip, arguments.model, arguments.models_dir, *threshold)
            faces = detect(arguments.saccade, clip, "yunet", peers, "--score-threshold", SURE_FACE)
            people = detect(arguments.saccade, clip, "yolox-nano", peers, "--classes", "person")
            sure = met = boxes = strays = helmets = 0
            for found, seen, present in zip(own, faces, people, strict=True):
                heads = [box for label, box in found if label == "head"]
                sure += len(seen)
                met += sum(any(covers(head, face) for head in heads) for _, face in seen)
                boxes += len(found)
                helmets += len(found) - len(heads)
                strays += sum(all(overlap(box, person) == 0 for _, person in present) for _, box in found)
            print(
                f"{name}: {len(own)} frames; faces {sure}, found {met} ({met / max(1, sure):.1%}); boxes {boxes}, "
                f"helmets among them {helmets}, off any person {strays} ({100 * strays / len(own):.2f} in 100 frames)"
            )


if __name__ == "__main__":
    main()
