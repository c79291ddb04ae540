#!/usr/bin/env python3
"""Saccade beside a server that a user would write instead (peers/aiortc_server.py), in one run.

Both run the same model file in fp32 with one thread, and get the same clip in H.264 from the same generator; they take
turns, and each figure is the median over the turns. Writes a table and the ratios as Markdown, with the machine, the
versions and the command.

python3 tests/bench/run.py --saccade target/release/saccade --peer-python VENV/bin/python --model yolox_nano_416.onnx
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
#: Seconds until a server is ready, and until it has ended.
START, END = 60, 15
#: The sides that are compared.
OURS, OURS_PPE = "Saccade, yolox-nano fp32", "Saccade, ppe-nano"
PLAIN, NEWEST, NEWEST_PPE = "aiortc, yolox-nano", "aiortc, yolox-nano, newest frame", "aiortc, ppe-nano, newest frame"
SIDES = (OURS, OURS_PPE, PLAIN, NEWEST, NEWEST_PPE)


#: What stands before the part of RESULTS.md that budget.py writes.
MARKER = "<!-- budget.py writes what follows -->\n"


def keep_rest(out: pathlib.Path, main: str | None = None, budget: str | None = None) -> None:
    """Writes one part of the results, and keeps the other."""
    before, _, behind = out.read_text().partition(MARKER) if out.exists() else ("", "", "")
    out.write_text((before if main is None else main + "\n") + MARKER + (behind if budget is None else "\n" + budget))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(command: list[str], ready: str) -> Iterator[int]:
    """A server until the block ends; gives its process id once `ready` answers."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            deadline = time.monotonic() + START
            while True:
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"{command[0]} did not start:\n{log.read().decode(errors='replace')[-2000:]}")
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(ready, timeout=1)
                    break
                time.sleep(0.1)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def ours(arguments: argparse.Namespace, models: pathlib.Path, model: str) -> Iterator[tuple[int, list[str], str]]:
    http, ops = free_port(), free_port()
    command = [arguments.saccade, "serve", "--listen", f"127.0.0.1:{http}", "--set", f"ops.listen=127.0.0.1:{ops}"]
    command += ["--set", "media.port=0"]
    command += ["--models-dir", str(models), "--model", model, "--set", "admission.mode=off"]
    with running(command, f"http://127.0.0.1:{ops}/readyz") as pid:
        yield pid, ["--url", f"ws://127.0.0.1:{http}/v1/signal"], f"http://127.0.0.1:{ops}"


@contextlib.contextmanager
def peer(arguments: argparse.Namespace, latest: bool, model: pathlib.Path) -> Iterator[tuple[int, list[str], str]]:
    port = free_port()
    command = [arguments.peer_python, str(HERE / "peers/aiortc_server.py"), "--model", str(model)]
    command += ["--port", str(port), "--threads", "1", *(["--latest"] if latest else [])]
    with running(command, f"http://127.0.0.1:{port}/stats") as pid:
        yield pid, ["--url", f"http://127.0.0.1:{port}/offer"], f"http://127.0.0.1:{port}"


def bench_command(arguments: argparse.Namespace, pid: int, where: list[str]) -> list[str]:
    command = [arguments.saccade, "bench", *where, "--server-pid", str(pid), "--json", "-", "-q"]
    return [*command, "--clip", str(arguments.clip), "--size", "640x480"]


def bench(arguments: argparse.Namespace, pid: int, where: list[str], sessions: int) -> dict:
    command = bench_command(arguments, pid, where)
    command += ["--sessions", str(sessions), "--duration", f"{arguments.seconds}s"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=arguments.seconds + START)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr}")
    return json.loads(done.stdout)


def inference_cpu_ms(figures: dict, base: str, is_peer: bool) -> float | None:
    """Processor milliseconds of inference for each result, where there were results."""
    if figures["server_cpu_ms_per_result"] is None:
        return None
    if is_peer:
        return json.load(urllib.request.urlopen(f"{base}/stats", timeout=5))["infer_cpu_ms"]
    # The models' threads also prepare pictures and read outputs, whose times the server tells.
    lines = urllib.request.urlopen(f"{base}/metrics", timeout=5).read().decode().splitlines()
    value = lambda name: sum(float(line.split()[-1]) for line in lines if line.startswith(name))
    stage = lambda name, part: value(f'saccade_stage_duration_seconds_{part}{{stage="{name}"}}')
    around = [1e3 * stage(name, "sum") / max(1.0, stage(name, "count")) for name in ("preprocess", "postprocess")]
    threads = figures["server_threads_cpu_ms_per_result"]
    return sum(spent for name, spent in threads.items() if name.startswith("infer")) - sum(around)


def stages(arguments: argparse.Namespace, models: pathlib.Path, model: str) -> float:
    """Processor milliseconds of a frame that only goes through the bare stages."""
    command = [arguments.saccade, "bench", "stages", "--models-dir", str(models), "--model", model, "--json"]
    done = subprocess.run(
        [*command, "--clip", str(arguments.clip)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return json.loads(done.stdout)["cpu_ms_per_frame"]


def models_folder(arguments: argparse.Namespace, folder: pathlib.Path) -> pathlib.Path:
    """The peer's model for us, with the manifest beside it, or else that of the tests."""
    model, place = arguments.model, folder / "yolox-nano/1"
    manifest = model.parent if (model.parent / "manifest.toml").exists() else ROOT / "tests/data/models/yolox-nano/1"
    place.mkdir(parents=True)
    for file in [*manifest.glob("*.txt"), *manifest.glob("*.toml")]:
        shutil.copy(file, place)
    shutil.copy(model, place / "model.onnx")
    return folder


def machine() -> str:
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return f"{os.cpu_count()} × {cpu}, {platform.system()} {platform.release().split('-')[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saccade", default=shutil.which("saccade") or "target/release/saccade")
    parser.add_argument("--peer-python", required=True, help="Python with tests/bench/requirements.txt")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="yolox_nano_416.onnx")
    parser.add_argument("--clip", default="scene")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    arguments.model = arguments.model.resolve()
    arguments.saccade = str(pathlib.Path(arguments.saccade).resolve())
    with tempfile.TemporaryDirectory() as scratch:
        models = models_folder(arguments, pathlib.Path(scratch))
        ppe_nano = next(ROOT.glob("models/ppe-nano/*/model.onnx"))
        sides = {
            OURS: lambda: ours(arguments, models, "yolox-nano"),
            OURS_PPE: lambda: ours(arguments, models, "ppe-nano"),
            PLAIN: lambda: peer(arguments, False, arguments.model),
            NEWEST: lambda: peer(arguments, True, arguments.model),
            NEWEST_PPE: lambda: peer(arguments, True, ppe_nano),
        }
        rows: dict[tuple[str, int], list[dict]] = {}
        bare: dict[str, list[float]] = {OURS: [], OURS_PPE: []}
        for turn in range(arguments.turns):
            bare[OURS].append(stages(arguments, models, "yolox-nano"))
            bare[OURS_PPE].append(stages(arguments, models, "ppe-nano"))
            for sessions in arguments.sessions:
                for name, start in sides.items():
                    with start() as (pid, where, base):
                        figures = bench(arguments, pid, where, sessions)
                        figures["inference_ms"] = inference_cpu_ms(figures, base, name.startswith("aiortc"))
                    rows.setdefault((name, sessions), []).append(figures)
                    print(
                        f"turn {turn + 1}, {sessions} sessions, {name}: {figures['results']} results", file=sys.stderr
                    )
            # After each turn: what was measured is kept, whatever comes.
            keep_rest(arguments.out, main=report(arguments, rows, bare))


def versions(arguments: argparse.Namespace) -> str:
    code = "from importlib.metadata import version as v; print(', '.join(f'{p} {v(p)}' for p in %r))"
    wanted = ["aiortc", "av", "onnxruntime", "numpy", "opencv-python-headless"]
    python = subprocess.run([arguments.peer_python, "-c", code % wanted], capture_output=True, text=True, check=True)
    ours = subprocess.run([arguments.saccade, "--version"], capture_output=True, text=True, check=True)
    return f"{ours.stdout.strip()}; {python.stdout.strip()}"


def report(arguments: argparse.Namespace, rows: dict[tuple[str, int], list[dict]], bare: dict[str, list[float]]) -> str:
    def middle(values: list) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    shown = lambda value, digits=1: "–" if value is None else f"{value:.{digits}f}"
    command = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    flags = (
        f"--seconds {arguments.seconds} --turns {arguments.turns} --sessions {' '.join(map(str, arguments.sessions))}"
    )
    lines = [
        "# Saccade beside an aiortc server",
        "",
        f'`make bench ARGS="{flags}"` at commit {commit}, {time.strftime("%Y-%m-%d")}.',
        f"{machine()}. {versions(arguments)}.",
        "",
        f"Client and server share the cores. One clip ({arguments.clip}), H.264 640×480 at 30 frames a second; sides take",
        "turns; medians over the turns. The peer is [peers/aiortc_server.py](peers/aiortc_server.py), plain (frames queue)",
        "and with `--latest` (newest frame). Milliseconds a result are the server's processor time for each inferred frame;",
        "a result is on time within 200 ms; latency is from the last packet of a frame to its result, and for video to the",
        "same frame in the returned picture.",
        "",
        "| side | sessions | results on time /s | results /s | ms a result | of it not inference | p50 ms | p95 ms "
        "| video p50 ms | memory MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    table = {}
    for (name, sessions), found in sorted(rows.items(), key=lambda row: (list(SIDES).index(row[0][0]), row[0][1])):
        cpu = [f["server_cpu_ms_per_result"] for f in found]
        rest = [f["server_cpu_ms_per_result"] - f["inference_ms"] for f in found if f["inference_ms"] is not None]
        latency = lambda key, part: middle([f[key] and f[key][part] for f in found])
        row = dict(
            on_time=middle([f["results_on_time_per_s"] for f in found]),
            results=middle([f["results_per_s"] for f in found]),
            cpu=middle(cpu),
            rest=middle(rest),
            p50=latency("result_latency_ms", "p50"),
            p95=latency("result_latency_ms", "p95"),
            video=latency("video_latency_ms", "p50"),
            memory=middle([f["server_rss_bytes"] / 1e6 for f in found]),
        )
        table[name, sessions] = row
        lines.append(f"| {name} | {sessions} | " + " | ".join(shown(value) for value in row.values()) + " |")
    few = min(arguments.sessions)
    one = {name: table[name, few] for name in SIDES}
    best = {name: max(row["on_time"] or 0 for (side, _), row in table.items() if side == name) for name in SIDES}
    divided = lambda a, b, digits=2: f"{a / b:.{digits}f}" if a and b else "–"
    ratio = lambda key, a, b: divided(one[a][key], one[b][key])
    limit = {name: middle(values) for name, values in bare.items()}
    lines += [
        "",
        f"- Processor time a result, {few} session, yolox-nano in fp32 on both sides: {ratio('cpu', OURS, NEWEST)} of the",
        f"  peer's with the newest frame, {ratio('cpu', OURS, PLAIN)} of the plain one's; outside inference",
        f"  {ratio('rest', OURS, NEWEST)} and {ratio('rest', OURS, PLAIN)}.",
        f"- The same with ppe-nano: {ratio('cpu', OURS_PPE, NEWEST_PPE)}, outside inference {ratio('rest', OURS_PPE, NEWEST_PPE)}.",
        f"- Results on time at the best load of each: {divided(best[OURS], max(best[PLAIN], best[NEWEST]), 1)} × the peer's with",
        f"  yolox-nano in fp32, {divided(best[OURS_PPE], best[NEWEST_PPE], 1)} × with ppe-nano.",
        f"- Against the bare stages (`saccade bench stages`: {shown(limit[OURS])} ms and {shown(limit[OURS_PPE])} ms a frame):",
        f"  {divided(one[OURS]['cpu'], limit[OURS])} × with yolox-nano, {divided(one[OURS_PPE]['cpu'], limit[OURS_PPE])} × with ppe-nano.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
