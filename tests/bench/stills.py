#!/usr/bin/env python3
"""Saccade beside a FastAPI server for still pictures (peers/fastapi_server.py), in one run.

Both run the same model file with one thread a run, and get the same photos from the same generator, each with a comment
of its own, so that no cache helps; they take turns, and each figure is the median over the turns. Then Saccade gets the
same photos again and again, as its cache knows them. Writes a table and the ratios as Markdown.

python3 tests/bench/stills.py --saccade target/release/saccade --peer-python VENV/bin/python --model yolox_nano_416.onnx
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

from run import HERE, ROOT, START, free_port, machine, models_folder, running

OURS, PEER = "Saccade, yolox-nano fp32", "FastAPI, yolox-nano fp32"
#: The embedded model, in the precision that is fastest here of those that lose little; the peer runs it in fp32.
OURS_PPE, PEER_PPE = "Saccade, ppe-nano", "FastAPI, ppe-nano fp32"
PAIRS = [(OURS, PEER), (OURS_PPE, PEER_PPE)]
SIDES = (OURS, PEER, OURS_PPE, PEER_PPE)

#: Processor milliseconds of one run of the model by itself, as the peer runs it.
ALONE = """
import sys, time, numpy as np, onnxruntime as ort
options = ort.SessionOptions(); options.intra_op_num_threads = 1
net = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
given = net.get_inputs()[0]
shape = [side if isinstance(side, int) else 1 for side in given.shape]
picture = np.random.default_rng(1).uniform(0, 255, shape).astype(np.float32)
for _ in range(5): net.run(None, {given.name: picture})
before = time.process_time()
for _ in range(50): net.run(None, {given.name: picture})
print((time.process_time() - before) * 20)
"""


@contextlib.contextmanager
def ours(arguments: argparse.Namespace, models: pathlib.Path, model: str) -> Iterator[tuple[int, str, str]]:
    http, ops = free_port(), free_port()
    command = [arguments.saccade, "serve", "--listen", f"127.0.0.1:{http}", "--set", f"ops.listen=127.0.0.1:{ops}"]
    command += ["--set", "media.port=0", "--models-dir", str(models), "--model", model]
    with running(command, f"http://127.0.0.1:{ops}/readyz") as pid:
        yield pid, f"http://127.0.0.1:{http}/v1/detect", f"http://127.0.0.1:{ops}/metrics"


@contextlib.contextmanager
def peer(arguments: argparse.Namespace, model: pathlib.Path) -> Iterator[tuple[int, str, str | None]]:
    port = free_port()
    command = [arguments.peer_python, str(HERE / "peers/fastapi_server.py"), str(model), str(port), "1"]
    with running(command, f"http://127.0.0.1:{port}/openapi.json") as pid:
        yield pid, f"http://127.0.0.1:{port}/v1/detect", None


def bench(arguments: argparse.Namespace, pid: int, url: str, concurrency: int, distinct: bool = True) -> dict:
    command = [arguments.saccade, "bench", "--url", url, "--clip", str(arguments.photos), "--json", "-", "-q"]
    command += ["--server-pid", str(pid), "--concurrency", str(concurrency), "--duration", f"{arguments.seconds}s"]
    command += ["--distinct"] if distinct else []
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=arguments.seconds + START)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr}")
    return json.loads(done.stdout)


def inference_ms(figures: dict, metrics: str | None, alone: float) -> float:
    """Processor milliseconds of inference for each picture."""
    if metrics is None:
        return alone
    # The models' threads also prepare pictures and read outputs, whose times the server tells.
    lines = urllib.request.urlopen(metrics, timeout=5).read().decode().splitlines()
    value = lambda name: sum(float(line.split()[-1]) for line in lines if line.startswith(name))
    stage = lambda name, part: value(f'saccade_stage_duration_seconds_{part}{{stage="{name}"}}')
    around = [1e3 * stage(name, "sum") / max(1.0, stage(name, "count")) for name in ("preprocess", "postprocess")]
    threads = figures["server_threads_cpu_ms_per_picture"]
    return sum(spent for name, spent in threads.items() if name.startswith("infer")) - sum(around)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saccade", default=shutil.which("saccade") or "target/release/saccade")
    parser.add_argument("--peer-python", required=True, help="Python with tests/bench/requirements.txt")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="yolox_nano_416.onnx")
    assets = pathlib.Path(os.environ.get("SACCADE_TEST_ASSETS", ROOT.parent / "shared"))
    photos = assets / "datasets/coco_permissive/images"
    parser.add_argument("--photos", type=pathlib.Path, default=photos, help="a folder of JPEGs")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "STILLS.md")
    arguments = parser.parse_args()
    arguments.model, arguments.photos = arguments.model.resolve(), arguments.photos.resolve()
    arguments.saccade = str(pathlib.Path(arguments.saccade).resolve())
    rows: dict[tuple[str, int], list[dict]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        models = models_folder(arguments, pathlib.Path(scratch))
        ppe_nano = next(ROOT.glob("models/ppe-nano/*/model.onnx"))
        sides = {
            OURS: lambda: ours(arguments, models, "yolox-nano"),
            PEER: lambda: peer(arguments, arguments.model),
            OURS_PPE: lambda: ours(arguments, models, "ppe-nano"),
            PEER_PPE: lambda: peer(arguments, ppe_nano),
        }
        for turn in range(arguments.turns):
            alone = {}
            for name, model in ((PEER, arguments.model), (PEER_PPE, ppe_nano)):
                command = [arguments.peer_python, "-c", ALONE, str(model)]
                alone[name] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            for concurrency in arguments.concurrency:
                for name, start in sides.items():
                    with start() as (pid, url, metrics):
                        # The first requests of a process cost more.
                        short = argparse.Namespace(**{**vars(arguments), "seconds": 2})
                        bench(short, pid, url, concurrency)
                        figures = bench(arguments, pid, url, concurrency)
                        figures["inference_ms"] = inference_ms(figures, metrics, alone.get(name, 0.0))
                        if metrics is not None:
                            # The first round fills the cache.
                            bench(short, pid, url, concurrency, distinct=False)
                            known = bench(short, pid, url, concurrency, distinct=False)
                            figures["known_ms"] = known["latency_ms"]["p50"]
                    rows.setdefault((name, concurrency), []).append(figures)
                    told = f"turn {turn + 1}, {concurrency} at a time, {name}: {figures['answered_per_s']} pictures/s"
                    print(told, file=sys.stderr)
            arguments.out.write_text(report(arguments, rows))


def report(arguments: argparse.Namespace, rows: dict[tuple[str, int], list[dict]]) -> str:
    commit = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(commit, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    flags = f"--seconds {arguments.seconds} --turns {arguments.turns} --concurrency {' '.join(map(str, arguments.concurrency))}"
    lines = [
        "# Still pictures beside a FastAPI server",
        "",
        f"`tests/bench/stills.py {flags}` at commit {commit}, {time.strftime('%Y-%m-%d')}.",
        f"{machine()}. Client and server share the cores; sides take turns; medians over the turns. No two",
        "pictures have the same bytes. The peer is [peers/fastapi_server.py](peers/fastapi_server.py). Its time outside inference",
        "is its processor time less that of the model's run by itself.",
        "",
        "| side | at a time | pictures /s | ms of processors a picture | of it not inference | p50 ms | p95 ms | memory MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    table = {}
    for (name, concurrency), found in sorted(rows.items(), key=lambda row: (row[0][1], list(SIDES).index(row[0][0]))):
        middle = lambda values: statistics.median(values)
        row = {
            "rate": middle([it["answered_per_s"] for it in found]),
            "cpu": middle([it["server_cpu_ms_per_picture"] for it in found]),
            "rest": middle([it["server_cpu_ms_per_picture"] - it["inference_ms"] for it in found]),
            "p50": middle([it["latency_ms"]["p50"] for it in found]),
            "p95": middle([it["latency_ms"]["p95"] for it in found]),
            "memory": middle([it["server_rss_bytes"] / 1e6 for it in found]),
        }
        lines.append(f"| {name} | {concurrency} | " + " | ".join(f"{value:.1f}" for value in row.values()) + " |")
        table[name, concurrency] = row
        if name in (OURS, OURS_PPE):
            row["known"] = middle([it["known_ms"] for it in found])
    lines.append("")
    for one, other in PAIRS:
        for concurrency in arguments.concurrency:
            if (one, concurrency) in table and (other, concurrency) in table:
                us, them = table[one, concurrency], table[other, concurrency]
                lines.append(
                    f"- {one}, {concurrency} at a time: {us['rate'] / them['rate']:.2f} × the peer's pictures a second, "
                    f"{us['cpu'] / them['cpu']:.2f} of its processor time a picture, outside inference {us['rest'] / them['rest']:.2f}."
                )
                if concurrency > min(arguments.concurrency):
                    continue
                lines.append(
                    f"- {one}, {concurrency} at a time: a picture that the cache knows is answered in {us['known']:.2f} ms, a new one in "
                    f"{us['p50'] / us['known']:.0f} times that (p50, over HTTP). What the lookup itself takes is in `cargo bench --bench results`."
                )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
