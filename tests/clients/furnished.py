"""A server with something at every route: two versions of a model, history, a camera, a sink, and a live session."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
from scene import FOLDER, Scene
from server import ROOT, Server

EXAMPLES = ROOT / "examples" / "python"
LIVE, CLIENT = EXAMPLES / "live.py", EXAMPLES / "saccade_client.py"
VIDEO = FOLDER / "scene.mp4"
ZONE = {"name": "work", "polygon": [[0.2, 0.3], [0.8, 0.3], [0.9, 1], [0.1, 1]]}
# Nobody listens there: what connects to it is told so at once.
NOBODY = "127.0.0.1:9"
# A frame of the scene with people in it.
NUMBER = 60


def models(folder: Path) -> Path:
    """A models folder with a model in two versions, and the embedded one."""
    first = ROOT / "models" / "scene-blobs" / "1"
    for version in ("1", "2"):
        place = folder / "scene-blobs" / version
        shutil.copytree(first, place)
        manifest = place / "manifest.toml"
        manifest.write_text(manifest.read_text().replace('version = "1"', f'version = "{version}"'))
    return folder


@contextmanager
def server(folder: Path, **settings: Any) -> Iterator[Server]:
    """The server, which keeps its things in `folder`."""
    camera = {"name": "entrance", "url": f"rtsp://{NOBODY}/stream1"}
    sink = {"name": "hooks", "type": "webhook", "url": f"http://{NOBODY}/saccade"}
    furniture = {"models__dir": models(folder / "models"), "cameras": json.dumps([camera]), "sinks": json.dumps([sink])}
    furniture |= {"store__url": f"sqlite://{folder}/history.db", "shutdown__grace_ms": 500}
    server = Server(**furniture | settings)
    try:
        yield server
    finally:
        server.stop()


def picture(scene: Scene, ending: str) -> bytes:
    """A picture of the scene, as `.jpg`, `.png` or `.webp`."""
    done, encoded = cv2.imencode(ending, cv2.cvtColor(scene.frames[NUMBER], cv2.COLOR_YUV2BGR_I420))
    assert done
    return encoded.tobytes()


def words(program: Path, *more: object) -> list[str]:
    return [sys.executable, "-B", str(program), *map(str, more)]


def environment(server: Server, **more: str) -> dict[str, str]:
    """What the examples read of it: the address, and no token but one that is given."""
    clean = {name: value for name, value in os.environ.items() if name != "SACCADE_TOKEN"}
    return clean | {"SACCADE_URL": server.url} | more


@contextmanager
def publisher(server: Server, **options: Any) -> Iterator[str]:
    """A session of the example's that lasts; its id, once it has results."""
    said = json.dumps({"zones": [ZONE]} | options)
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        words(LIVE, VIDEO, "--options", said), env=environment(server), stdout=pipe, stderr=pipe, text=True
    )
    # It ends by itself where nothing comes.
    try:
        begin = process.stderr.readline()
        assert begin.startswith("session "), begin + process.stderr.read()
        while not (line := process.stdout.readline()).startswith("frame "):
            assert line, process.stderr.read()
        # What it prints further is read by nobody, and must not hold it up.
        drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        try:
            yield begin.split()[1]
        finally:
            process.terminate()
            code = process.wait(20)
            drain.wait(20)
        assert code == 0, process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
