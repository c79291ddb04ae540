"""A real Prometheus, a server under all kinds of load at once, and what deploy/ has to say of both."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import aiohttp
import chart
import yaml
from aiortc import RTCConfiguration, RTCPeerConnection
from furnished import NOBODY, picture
from peer import Peer, connect
from scene import Scene
from server import BINARY, ROOT, Server, free_port

DEPLOY = ROOT / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
VIEWER = ROOT / "tests" / "clients" / "viewer.py"
# Seconds that a start, an answer or an end may take.
LIMIT = 30.0
# The label `job` of the server, as in prometheus.yml.
JOB = "saccade"
# What the operator of Prometheus says of a pod.
POD = {"namespace": "vision", "pod": "saccade-0", "service": "saccade-ops"}

sys.path.insert(0, str(DEPLOY / "grafana"))
from boards import BOARDS  # noqa: E402


@cache
def rules() -> tuple[dict[str, Any], ...]:
    """Every recording rule and every alert."""
    return tuple(rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"])


@cache
def documented() -> dict[str, set[str]]:
    """Names of the server's metrics and their labels, as METRICS.md has them."""
    rows = re.findall(r"^\| `(saccade_\w+)` \| \w+ \| ([^|]*)\|", (DEPLOY / "METRICS.md").read_text(), re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}


# Metrics that dashboards and rules know, and that versions before may lack; where METRICS.md has them, that counts.
NEWER = {
    "saccade_cluster_forwarded_total": {"kind", "outcome"},
    "saccade_cluster_received_total": {"outcome"},
    "saccade_cluster_registry_breaker_open": set(),
    "saccade_cluster_registry_total": {"operation", "outcome"},
    "saccade_cluster_renewals_missed_total": set(),
    "saccade_codec_threads": set(),
    "saccade_memory_level": {"kind"},
    "saccade_memory_sheds_total": {"kind"},
    "saccade_memory_refused_total": {"work"},
    "saccade_memory_used_ratio": {"kind"},
    "saccade_model_instances": {"model"},
    "saccade_processors": set(),
    "saccade_processors_busy_ratio": set(),
    "saccade_trace_export_seconds": set(),
    "saccade_trace_spans_total": {"outcome"},
}


def missing() -> set[str]:
    """Those that this version lacks."""
    return NEWER.keys() - documented().keys()


def metric(name: str) -> str:
    """The metric that a series of this name is of."""
    return re.sub("_(bucket|sum|count)$", "", name)


class Prometheus:
    """Prometheus with the rules of deploy/ and a short interval, which scrapes one server."""

    def __init__(self, folder: Path, target: str) -> None:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(path) for path in RULES]
        (job,) = [it for it in config["scrape_configs"] if it["job_name"] == JOB]
        # With the labels that a ServiceMonitor gives in a cluster.
        targets = {"targets": [target], "labels": POD}
        config["scrape_configs"] = [job | {"static_configs": [targets], "file_sd_configs": []}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = (folder / "prometheus.log").open("w+")
        words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        words.append(f"--web.listen-address={self.url.removeprefix('http://')}")
        self.process = subprocess.Popen(["prometheus", *words], stdout=self.log, stderr=self.log)

    async def ready(self, http: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(LIMIT):
            while True:
                assert self.process.poll() is None, self.said()
                try:
                    async with http.get(f"{self.url}/-/ready") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.1)

    async def ask(self, http: aiohttp.ClientSession, expr: str) -> list[dict[str, Any]]:
        """What an expression is now; fails with what Prometheus says if it is none."""
        async with http.post(f"{self.url}/api/v1/query", data={"query": expr}) as answer:
            body = await answer.json()
        assert body["status"] == "success", f"{body.get('error')}: {expr}"
        result = body["data"]["result"]
        return result if body["data"]["resultType"] == "vector" else [{"metric": {}, "value": result}]

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self.log.close()


@contextmanager
def receiver() -> Iterator[str]:
    """A webhook that takes whatever comes; its URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/saccade"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def version(models: Path, number: int) -> None:
    """Puts a version of the scene's model into a models folder."""
    place = models / "scene-blobs" / str(number)
    shutil.copytree(ROOT / "models" / "scene-blobs" / "1", place)
    manifest = place / "manifest.toml"
    manifest.write_text(manifest.read_text().replace('version = "1"', f'version = "{number}"'))


def start(folder: Path, hook: str) -> Server:
    """A server with a store, a tier of results on disk, a camera and a sink that nobody is behind, and a model that is none."""
    version(folder / "models", 1)
    broken = folder / "models" / "broken" / "1"
    broken.mkdir(parents=True)
    (broken / "manifest.toml").write_text('name = "broken"\n')
    camera = {"name": "entrance", "url": f"rtsp://{NOBODY}/stream1"}
    every = {"type": "webhook", "send": ["events", "results"]}
    sinks = [
        every | {"name": "hooks", "url": hook},
        every | {"name": "nobody", "url": f"http://{NOBODY}/", "max_attempts": 1, "retry_min_ms": 10, "retry_max_ms": 100, "dead_letter": f"{folder}/letters.jsonl"},
    ]  # fmt: skip
    return Server(
        models__dir=folder / "models",
        cameras=json.dumps([camera]),
        sinks=json.dumps(sinks),
        store__url=f"sqlite://{folder}/history.db",
        cache__disk_dir=folder / "cache",
        # Results are old at once, so that they are computed anew.
        cache__ttl_s=1,
        session__still_gate="true",
        session__still_check_every=2,
        # The camera, two of the load generator, one of a still scene and its viewer: one more is too many.
        admission__mode="fixed",
        admission__max_sessions=5,
        session__ice_timeout_ms=1000,
        shutdown__grace_ms=1000,
    )


async def live(server: Server) -> None:
    """Two sessions that send the scene and get video back, compared with a shadow; they end and come again."""
    words = ["bench", "--quiet", "--url", server.ws, "--sessions", "2", "--duration", "4s", "--fps", "10", "--size", "320x240"]
    while True:
        process = await asyncio.create_subprocess_exec(
            BINARY, *words, "--return", "exact", "--model", "compared", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A viewer, in a process of its own, which has seen a picture."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-B", VIEWER, url, stdout=subprocess.PIPE)
    try:
        async with asyncio.timeout(LIMIT):
            line = await process.stdout.readline()
        assert line == b"watching\n", line
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def look_in(http: aiohttp.ClientSession, url: str) -> None:
    """A viewer that leaves before it has seen anything."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("video", direction="recvonly")
    await pc.setLocalDescription(await pc.createOffer())
    async with http.post(url, data=pc.localDescription.sdp, headers={"content-type": "application/sdp"}) as answer:
        assert answer.status == 201, await answer.text()
        place = answer.headers["location"]
    async with http.delete(place) as answer:
        assert answer.status == 200, await answer.text()
    await pc.close()


async def ask(server: Server, http: aiohttp.ClientSession, scene: Scene, hopeless: str) -> None:
    """Still pictures, known and new, tensors, and requests that are refused."""
    jpeg, tensors = picture(scene, ".jpg"), {"name": "images", "datatype": "FP32", "shape": [1, 3, 320, 320], "data": [0.5] * 307200}
    for number in range(1_000_000):
        # A comment makes a picture of its own of it.
        new = jpeg[:2] + b"\xff\xfe\x00\x06%04d" % (number % 10_000) + jpeg[2:]
        for body in (jpeg, new, b"no picture"):
            async with http.post(f"{server.url}/v1/detect", data=body, headers={"content-type": "image/jpeg"}) as answer:
                assert answer.status == (415 if body == b"no picture" else 200), await answer.text()
        async with http.post(f"{server.url}/v2/models/scene-blobs/infer", json={"inputs": [tensors]}) as answer:
            assert answer.status == 200, await answer.text()
        # Refused while the server is full, and without a path for the second that it may take where it is not.
        if number % 8 == 0:
            async with http.post(f"{server.url}/v1/offer", json={"sdp": hopeless, "type": "offer"}) as answer:
                assert answer.status in (200, 503), await answer.text()
        async with http.delete(f"{server.url}/v1/cache", params={"tag": "none"}) as answer:
            assert answer.status == 200, await answer.text()
        await asyncio.sleep(0.3)


@asynccontextmanager
async def load(server: Server, http: aiohttp.ClientSession, models: Path) -> AsyncIterator[list[asyncio.Task]]:
    """Everything at once. A task that ends has failed."""
    version(models, 2)
    async with http.post(f"{server.url}/v1/models/scene-blobs/load") as answer:
        assert answer.status == 200, await answer.text()
    route = {"split": [{"model": "scene-blobs@2", "weight": 100}], "shadow": "scene-blobs@1"}
    async with http.put(f"{server.url}/v1/routes/compared", json=route) as answer:
        assert answer.status == 201, await answer.text()
    # A scene that stands still.
    scene = Scene()
    scene.frames = scene.frames[:1] * len(scene.frames)
    async with Peer(scene, "VP8", fps=10) as peer, Peer(scene, "VP8") as hopeless:
        session = await connect(http, server.url, peer, {"return": "exact"})
        await peer.results.more(3, "results")
        await look_in(http, f"{server.url}/v1/whep/{session}")
        async with watched(f"{server.url}/v1/whep/{session}"):
            tasks = [asyncio.ensure_future(it) for it in (live(server), ask(server, http, Scene(), await hopeless.offer()))]
            try:
                yield tasks
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


def as_values(expr: str) -> str:
    """The expression of an alert with comparisons that say 0 or 1: it has a value wherever its operands have."""
    return re.sub(r" (==|>=|<=|>|<) ", r" \1 bool ", expr)


def of_panels() -> Iterator[tuple[str, str]]:
    """Each expression of each panel, with its place, as Grafana sends it."""
    for board in BOARDS:
        values = {"job": ".*", "instance": ".*", "__rate_interval": "15s"} | {it.name: it.value for it in board.numbers}
        for panel in board.panels():
            for query in panel.queries:
                yield f"{board.title}, {panel.title}", re.sub(r"\$(\w+)", lambda it, known=values: known[it[1]], query.expr)


def of_rules() -> Iterator[tuple[str, str]]:
    """Each expression of each rule, with its name; of alerts what they compare."""
    for rule in rules():
        yield rule.get("record") or rule["alert"], as_values(rule["expr"]) if "alert" in rule else rule["expr"]


def of_autoscalers() -> Iterator[tuple[str, str]]:
    """What prometheus-adapter and KEDA ask, of the one pod that there is, which stands for a server of models, too."""
    for name, rule in chart.adapter_rules().items():
        yield f"prometheus-adapter, {name}", chart.adapter_query(rule, POD["namespace"], POD["pod"])
    for name, query in chart.keda_queries().items():
        yield f"KEDA, {name}", query.replace('service="saccade-inference"', f'service="{POD["service"]}"')
