#!/usr/bin/env python3
"""How Saccade keeps latency budgets when there is too much to do, and a server written with aiortc under the same load.

Three parts: four times as many sessions as the machine can serve in full, for minutes; three times as many for a while,
then as before; and video that does not wait for the model. Writes its part of RESULTS.md, behind the marker.

python3 tests/bench/budget.py --saccade target/release/saccade --peer-python VENV/bin/python --model yolox_nano_416.onnx
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from run import HERE, ROOT, START, bench_command, keep_rest, machine, models_folder, ours, peer

#: Slices of a long run whose latencies are compared.
SLICES = 6
#: What video that waits for nothing takes.
WORKING = ("decode", "annotate", "encode")


def load(arguments: argparse.Namespace, pid: int, where: list[str], *flags: str, seconds: int) -> dict:
    command = bench_command(arguments, pid, where) + ["--duration", f"{seconds}s", *flags]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=seconds + 2 * START)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr}")
    return json.loads(done.stdout)


def counter(base: str, name: str) -> float:
    """Sum over all lines of a metric of ours."""
    lines = urllib.request.urlopen(f"{base}/metrics", timeout=5).read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def slices(figures: dict) -> list[float | None]:
    """The median of the seconds' p95 in each slice of the run."""
    seconds = figures["timeline"][2:-1]
    size = max(1, len(seconds) // SLICES)
    parts = [seconds[at : at + size] for at in range(0, size * SLICES, size)]
    known = [[s["result_latency_p95_ms"] for s in part if s["result_latency_p95_ms"] is not None] for part in parts]
    return [statistics.median(part) if part else None for part in known]


def overload(arguments: argparse.Namespace, models: pathlib.Path) -> list[str]:
    sides = {
        "Saccade": (lambda: ours(arguments, models, "yolox-nano"), 1),
        "aiortc, newest frame": (lambda: peer(arguments, True, arguments.model), 0),
        "aiortc": (lambda: peer(arguments, False, arguments.model), 0),
    }
    sessions, note = arguments.capacity, ""
    shown = lambda value: "–" if value is None else f"{value:.0f}"
    lines = [
        f"## {4 * sessions} sessions where {sessions} are served in full",
        "",
        f"Ours for {arguments.seconds} s, the others for {arguments.peer_seconds} s.",
        "",
        "| side | results /s | on time | carried /s | p95 ms | p95 ms in each sixth of the run | fairness | fewest / most results |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (start, is_ours) in sides.items():
        with start() as (pid, where, base):
            flags = ["--scenario", "overload", "--sessions", str(sessions)]
            seconds = arguments.seconds if is_ours else arguments.peer_seconds
            figures = load(arguments, pid, where, *flags, seconds=seconds)
            inferred = counter(base, 'saccade_stage_duration_seconds_count{stage="inference"}') if is_ours else None
        counts = [one["results"] for one in figures["per_session"]]
        on_time, results = figures["results_on_time"], max(1, figures["results"])
        per_s = lambda count: count / figures["duration_s"]
        p95 = figures["result_latency_ms"] and figures["result_latency_ms"]["p95"]
        lines.append(
            f"| {name} | {figures['results_per_s'] or 0:.1f} | {100 * on_time / results:.1f} % | {per_s(figures['carried']):.1f} "
            f"| {shown(p95)} | {' '.join(shown(value) for value in slices(figures))} "
            f"| {figures['fairness'] or 0:.3f} | {min(counts)} / {max(counts)} |"
        )
        if inferred:
            lost = 100 * (1 - on_time / inferred)
            note = (
                f"Of {inferred:.0f} frames that went through the model, {max(0.0, lost):.2f} % gave no result in time."
            )
        print(lines[-1], file=sys.stderr)
    return [*lines, "", note, ""]


def step(arguments: argparse.Namespace, models: pathlib.Path) -> list[str]:
    sessions, seconds = arguments.step_sessions, arguments.step_seconds
    with ours(arguments, models, "yolox-nano") as (pid, where, base):
        flags = ["--scenario", "step", "--sessions", str(sessions)]
        figures = load(arguments, pid, where, *flags, seconds=seconds)
        changes = counter(base, "saccade_degradation_changes_total")
    begin, end = int(0.2 * seconds), int(0.6 * seconds)
    # A second counts as degraded when most of what is told in it says so.
    told = lambda s: s["results"] + s["carried"]
    degraded = [s["second"] for s in figures["timeline"] if s["degraded"] * 2 > told(s) > 0]
    # Taken back is all of it only when nothing says so any more.
    touched = [s["second"] for s in figures["timeline"] if s["degraded"] > 0]
    first = next((s for s in touched if s >= begin), None)
    last = max(touched, default=None)
    phases = [("before", 2, begin), ("during", begin + 5, end), ("after", end + 1, seconds - 1)]
    lines = [
        f"## {sessions} × 1 session, then {sessions} × 3, then {sessions} × 1 again",
        "",
        "| phase | results /s | carried /s | frames back /s | median of the seconds' p95 ms | seconds degraded |",
        "|---|---|---|---|---|---|",
    ]
    for name, start, stop in phases:
        part = figures["timeline"][start:stop]
        mean = lambda key: statistics.mean(s[key] for s in part)
        p95 = [s["result_latency_p95_ms"] for s in part if s["result_latency_p95_ms"] is not None]
        lines.append(
            f"| {name} | {mean('results'):.1f} | {mean('carried'):.1f} | {mean('frames_returned'):.1f} "
            f"| {statistics.median(p95):.0f} | {sum(s['second'] in degraded for s in part)} of {len(part)} |"
        )
    after = "never" if first is None else f"{first - begin} s after the step"
    back = "never" if last is None else f"{max(0, last + 1 - end)} s after the load had gone"
    return [
        *lines,
        "",
        f"Sessions began to give something up {after}, and had taken all of it back {back}; the ladder changed {changes:.0f} "
        "times in all.",
        "",
    ]


def watched(arguments: argparse.Namespace, pid: int, where: list[str], mode: str) -> tuple[dict, dict]:
    """One session, and what the server itself says of its stages near the end; of its video, last packet in to first
    packet out.
    """
    api = where[1].replace("ws://", "http://").replace("/v1/signal", "/v1/sessions")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        run = pool.submit(load, arguments, pid, where, "--return", mode, seconds=arguments.short_seconds)
        time.sleep(arguments.short_seconds - 3)
        (session,) = json.load(urllib.request.urlopen(api, timeout=5))
        return run.result(), {stage["stage"]: stage for stage in session["stages"]}


def predicted(arguments: argparse.Namespace, models: pathlib.Path) -> list[str]:
    lines = [
        "## One session whose video does not wait",
        "",
        "| model | return | result p50 ms | result p95 ms | video p50 ms | video p95 ms | in the server p50 ms | p95 ms | of it waiting p50 ms | p95 ms | decode + draw + encode, bare, ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model in ("yolox-nano", "ppe-nano"):
        command = [arguments.saccade, "bench", "stages", "--models-dir", str(models), "--model", model, "--json"]
        bare = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        bare = json.loads(bare.stdout)["stages_ms"]
        limit = sum(bare[stage]["p50"] for stage in WORKING)
        for mode in ("exact", "predicted"):
            with ours(arguments, models, model) as (pid, where, base):
                figures, stages = watched(arguments, pid, where, mode)
            server, waited = stages["video"], stages["video_waited"]
            result, video = figures["result_latency_ms"], figures["video_latency_ms"]
            lines.append(
                f"| {model} | {mode} | {result['p50']:.1f} | {result['p95']:.1f} | {video['p50']:.1f} | {video['p95']:.1f} "
                f"| {server['p50_ms']:.1f} | {server['p95_ms']:.1f} | {waited['p50_ms']:.1f} | {waited['p95_ms']:.1f} | {limit:.1f} |"
            )
            print(lines[-1], file=sys.stderr)
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saccade", default=shutil.which("saccade") or "target/release/saccade")
    parser.add_argument("--peer-python", required=True, help="Python with tests/bench/requirements.txt")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="yolox_nano_416.onnx")
    parser.add_argument("--clip", default="scene")
    parser.add_argument("--capacity", type=int, default=2, help="sessions that are served in full")
    parser.add_argument("--seconds", type=int, default=300, help="of the overload")
    parser.add_argument("--peer-seconds", type=int, default=300, help="of the overload for the other servers")
    parser.add_argument("--step-sessions", type=int, default=1, help="before and after the step")
    parser.add_argument("--step-seconds", type=int, default=120)
    parser.add_argument("--short-seconds", type=int, default=20)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    arguments.model = arguments.model.resolve()
    arguments.saccade = str(pathlib.Path(arguments.saccade).resolve())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    flags = f"--capacity {arguments.capacity} --seconds {arguments.seconds} "
    flags += f"--peer-seconds {arguments.peer_seconds} --step-seconds {arguments.step_seconds}"
    lines = [
        "# The latency budget when there is too much to do",
        "",
        f'`make bench-budget ARGS="{flags}"` at commit {commit.stdout.strip()}, {time.strftime("%Y-%m-%d")}, {machine()}.',
        "",
        f"The same clip ({arguments.clip}), H.264 640×480 at 30 frames a second, and yolox-nano in fp32 on both sides where",
        "nothing else is said; budgets of 200 ms; admission off. Clients and servers share the cores. Results are those of",
        "frames that the model saw; for frames that it did not see the tracker carries objects on. Fairness is Jain's index",
        "of results over the sessions. Video in the server is timed from the last packet in to the first one out; it waits",
        "while it is not decoded, drawn on or encoded.",
        "",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        models = models_folder(arguments, pathlib.Path(scratch))
        for part in (predicted, step, overload):
            lines += part(arguments, models)
            keep_rest(arguments.out, budget="\n".join(lines))


if __name__ == "__main__":
    main()
