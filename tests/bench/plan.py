#!/usr/bin/env python3
"""What `saccade plan` says one processor serves, beside what a search for the largest load finds that it serves, in one run.

The server gets one processor of its own and the generator the others, so that neither takes the other's time; `plan` measures
on the server's processor, before the server is there and after. The search keeps a budget of 200 ms at the 95th percentile with
95 % of the frames inferred. Writes a table as Markdown.

python3 tests/bench/plan.py --saccade target/release/saccade --peer-python python3 --model yolox_nano_416.onnx
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from run import HERE, ROOT, START, bench_command, free_port, machine, models_folder, running

#: Model and what is wanted back.
KINDS = (("ppe-nano", "exact"), ("ppe-nano", "results"), ("yolox-nano", "exact"))
#: Sessions that are tried at most.
MOST = 96


def planned(arguments: argparse.Namespace, models: pathlib.Path, model: str, returned: str, here: set[int]) -> dict:
    command = [arguments.saccade, "plan", "--sessions", "1000", "--models-dir", str(models), "--model", model]
    command += ["--return", returned, "--cores", "1", "--inferred", "0.95", "--fps", str(arguments.fps), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, here)
    )
    return json.loads(done.stdout)


def searched(arguments: argparse.Namespace, models: pathlib.Path, model: str, returned: str, here: set[int], there: set[int]) -> dict:
    http, ops = free_port(), free_port()
    command = ["taskset", "-c", ",".join(map(str, here)), arguments.saccade, "serve", "--listen", f"127.0.0.1:{http}"]
    command += ["--set", f"ops.listen=127.0.0.1:{ops}", "--set", "media.port=0", "--set", "admission.mode=off"]
    command += ["--models-dir", str(models), "--model", model]
    with running(command, f"http://127.0.0.1:{ops}/readyz") as pid:
        ask = bench_command(arguments, pid, ["--url", f"ws://127.0.0.1:{http}/v1/signal"])
        ask += ["--scenario", "ramp", "--sessions", str(MOST), "--return", returned, "--fps", str(arguments.fps)]
        ask += ["--duration", f"{arguments.seconds}s"]
        done = subprocess.run(
            ["taskset", "-c", ",".join(map(str, there)), *ask],
            capture_output=True, text=True, cwd=ROOT, timeout=arguments.seconds * 4 + START,
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(ask)}\n{done.stdout[-2000:]}{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saccade", default=shutil.which("saccade") or "target/release/saccade")
    parser.add_argument("--peer-python", help="not used: scripts/bench.sh names it")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="yolox_nano_416.onnx")
    parser.add_argument("--clip", default="scene")
    parser.add_argument("--fps", type=int, default=10, help="frames a second of a session: the fewer, the finer a search")
    parser.add_argument("--seconds", type=int, default=300, help="seconds of a search at most; it takes a dozen trials")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "PLAN.md")
    arguments = parser.parse_args()
    arguments.model, arguments.saccade = arguments.model.resolve(), str(pathlib.Path(arguments.saccade).resolve())
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("there have to be two processors: one for the server, one for what loads it")
    here, there = {cores[0]}, set(cores[1:])
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        models = models_folder(arguments, pathlib.Path(scratch))
        for model, returned in KINDS:
            before = planned(arguments, models, model, returned, here)
            found = searched(arguments, models, model, returned, here, there)
            after = planned(arguments, models, model, returned, here)
            too_many = min((trial["sessions"] for trial in found["trials"] if not trial["good"]), default=None)
            rows.append((model, returned, before, after, found["capacity"], too_many))
            print(model, returned, found["capacity"], file=sys.stderr)
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    lines = [
        "# What `saccade plan` says, and what a search finds",
        "",
        f"`tests/bench/plan.py --fps {arguments.fps} --seconds {arguments.seconds}` at commit {commit}, {time.strftime('%Y-%m-%d')}, {machine()}.",
        f"Sessions of 640×480 at {arguments.fps} frames a second at a server with one processor of its own; the generator has the",
        "others. The search wants 95 % of the frames inferred, and the 95th percentile of latency below 200 ms.",
        "The machine is not equally fast at all times: it is planned before the search and after it, and the ratio is that of the mean.",
        "",
        "| model | return | ms a frame, planned | with room to spare | at the limit | found | too many | limit / found |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, returned, before, after, found, too_many in rows:
        both = [(plan["needs"]["frame_ms"], plan["fleets"][0]) for plan in (before, after)]
        limits = [fleet["sessions_at_limit"] for _, fleet in both]
        ms = ", ".join(f"{ms:.2f}" for ms, _ in both)
        each = ", ".join(str(fleet["sessions_each"]) for _, fleet in both)
        ratio = f"{sum(limits) / 2 / max(1, found):.2f}"
        cells = [model, returned, ms, each, ", ".join(map(str, limits)), str(found), str(too_many or "—"), ratio]
        lines.append(f"| {' | '.join(cells)} |")
    arguments.out.write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
