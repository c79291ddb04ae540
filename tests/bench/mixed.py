#!/usr/bin/env python3
"""Live sessions and still pictures at one server, in one run: what pictures cost the sessions, and what a cached answer saves.

Sessions run alone, then beside pictures that come at a rate, half of them ones that the cache knows, then beside as many
pictures as are answered; rounds take turns, and each figure is the median over them. Writes tables as Markdown.

python3 tests/bench/mixed.py --saccade target/release/saccade --peer-python VENV/bin/python
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

from run import HERE, ROOT, START, free_port, machine, running

#: Seconds by which the load of pictures begins before the sessions are measured, and ends after.
AROUND = 4
#: Requests at a time, of each kind of picture.
CONCURRENCY = 32
#: Makes small pictures of photos: 320 pixels wide, as a page sends them.
SHRINK = """
import pathlib, sys, cv2
for photo in sorted(pathlib.Path(sys.argv[1]).glob("*.jpg"))[:20]:
    picture = cv2.imread(str(photo))
    height = round(320 * picture.shape[0] / picture.shape[1])
    small = cv2.resize(picture, (320, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(f"{sys.argv[2]}/{photo.name}", small, [cv2.IMWRITE_JPEG_QUALITY, 85])
"""


@contextlib.contextmanager
def server(arguments: argparse.Namespace):
    """A server as it comes, with the embedded model; gives its process and its port."""
    http, ops = free_port(), free_port()
    command = [arguments.saccade, "serve", "--listen", f"127.0.0.1:{http}", "--set", f"ops.listen=127.0.0.1:{ops}"]
    command += ["--set", "media.port=0"]
    with running(command, f"http://127.0.0.1:{ops}/readyz") as pid:
        yield pid, http


def pictures(arguments: argparse.Namespace, port: int, photos: pathlib.Path, seconds: int, *flags: str) -> subprocess.Popen:
    command = [arguments.saccade, "bench", "--url", f"http://127.0.0.1:{port}/v1/detect", "--clip", str(photos)]
    command += ["--json", "-", "-q", "--duration", f"{seconds}s", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)


def figures_of(process: subprocess.Popen, seconds: int) -> dict:
    told, _ = process.communicate(timeout=seconds + START)
    if process.returncode:
        raise SystemExit(f"{process.args}: {process.returncode}\n{told[-2000:]}")
    return json.loads(told)


def live(arguments: argparse.Namespace, pid: int, port: int) -> dict:
    command = [arguments.saccade, "bench", "--url", f"ws://127.0.0.1:{port}/v1/signal", "--clip", "scene", "--json", "-", "-q"]
    command += ["--sessions", str(arguments.sessions), "--duration", f"{arguments.seconds}s", "--server-pid", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=arguments.seconds + START)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr}")
    found = json.loads(done.stdout)
    latency = found["result_latency_ms"] or {}
    seconds = found["duration_s"]
    video = sum(one["frames_returned"] for one in found["timeline"]) / seconds
    return {"results": found["results_per_s"], "video": video, "p50": latency.get("p50"), "p95": latency.get("p95")}


def beside(arguments: argparse.Namespace, pid: int, port: int, photos: pathlib.Path, kinds: list[list[str]]) -> dict:
    """Sessions beside these loads of pictures."""
    seconds = arguments.seconds + 2 * AROUND
    loads = [pictures(arguments, port, photos, seconds, "--concurrency", str(CONCURRENCY), *flags) for flags in kinds]
    time.sleep(AROUND)
    found = live(arguments, pid, port)
    stills = [figures_of(load, seconds) for load in loads]
    answered, refused = sum(one["answered"] for one in stills), {}
    for one in stills:
        for status, count in one["refused"].items():
            refused[status] = refused.get(status, 0) + count
    full = sum(refused.pop(status, 0) for status in ("429", "503"))
    failed = sum(refused.values())
    latencies = [one["latency_ms"] or {} for one in stills]
    return found | {
        "answered": answered / seconds,
        "full": full / seconds,
        "failed": 100 * failed / max(1, answered + failed),
        "hit_p95": latencies[0].get("p95"),
        "miss_p95": latencies[-1].get("p95"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saccade", default=shutil.which("saccade") or "target/release/saccade")
    parser.add_argument("--peer-python", default=sys.executable, help="Python with tests/bench/requirements.txt")
    parser.add_argument("--model", help="not used: the embedded model is measured")
    assets = pathlib.Path(os.environ.get("SACCADE_TEST_ASSETS", ROOT.parent / "shared"))
    parser.add_argument("--photos", type=pathlib.Path, default=assets / "datasets/coco_permissive/images")
    parser.add_argument("--sessions", type=int, default=2, help="about 70 %% of what the machine can serve in full")
    parser.add_argument("--rate", type=int, default=500, help="pictures a second that are offered")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "MIXED.md")
    arguments = parser.parse_args()
    arguments.saccade = str(pathlib.Path(arguments.saccade).resolve())
    half = f"{arguments.rate // 2}/s"
    loads = {
        "sessions alone": [],
        f"beside {arguments.rate} pictures /s": [["--rate", half], ["--rate", half, "--distinct"]],
        "beside all that is answered": [["--distinct"]],
    }
    rows: dict[str, list[dict]] = {name: [] for name in loads}
    cache: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        photos = pathlib.Path(scratch)
        subprocess.run([arguments.peer_python, "-c", SHRINK, str(arguments.photos), scratch], check=True)
        for turn in range(arguments.turns):
            with server(arguments) as (pid, port):
                one = ["--concurrency", "1"]
                figures_of(pictures(arguments, port, photos, 2, *one), 2)
                known = figures_of(pictures(arguments, port, photos, 5, *one), 5)
                new = figures_of(pictures(arguments, port, photos, 5, *one, "--distinct"), 5)
                cache.append((known["latency_ms"]["p50"], new["latency_ms"]["p50"]))
                for name, kinds in loads.items():
                    found = beside(arguments, pid, port, photos, kinds) if kinds else live(arguments, pid, port)
                    rows[name].append(found)
                    print(f"turn {turn + 1}, {name}: {found}", file=sys.stderr)
            arguments.out.write_text(report(arguments, rows, cache))


def report(arguments: argparse.Namespace, rows: dict[str, list[dict]], cache: list[tuple[float, float]]) -> str:
    commit = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(commit, capture_output=True, text=True, cwd=ROOT).stdout.strip()
    flags = f"--sessions {arguments.sessions} --rate {arguments.rate} --seconds {arguments.seconds} --turns {arguments.turns}"

    def middle(found: list[dict], key: str) -> float | None:
        known = [one[key] for one in found if one.get(key) is not None]
        return statistics.median(known) if known else None

    shown = lambda value, digits=1: "–" if value is None else f"{value:.{digits}f}"
    lines = [
        "# Live sessions and still pictures at one server",
        "",
        f"`tests/bench/mixed.py {flags}` at commit {commit}, {time.strftime('%Y-%m-%d')}.",
        f"{machine()}. Clients and server share the cores; medians over the turns. The server is as it comes, with the embedded",
        f"model; {arguments.sessions} sessions send 640×480 at 30 frames a second and get annotated video and results back. Pictures",
        "are JPEGs of 320 pixels' width; of those at a rate, half are known to the cache and half are new. Turned away are those",
        "that got 429 or 503 since the server had no place for them; failed are all other answers but 200, as a share of what was",
        "admitted.",
        "",
        "| sessions | results /s | video frames back /s | p50 ms | p95 ms | pictures answered /s | turned away /s | failed % "
        "| known p95 ms | new p95 ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    keys = ("results", "video", "p50", "p95", "answered", "full", "failed", "hit_p95", "miss_p95")
    for name, found in rows.items():
        if found:
            lines.append(f"| {name} | " + " | ".join(shown(middle(found, key)) for key in keys) + " |")
    lines.append("")
    first, *others = rows
    for name in others:
        if rows[name]:
            lost = {key: 100 * (1 - middle(rows[name], key) / middle(rows[first], key)) for key in ("results", "video")}
            lines.append(f"- {name}: sessions lose {lost['video']:.1f} % of their video and {lost['results']:.1f} % of their results.")
    hit, miss = (statistics.median(part) for part in zip(*cache))
    lines.append(
        f"- One request at a time over HTTP: a known picture is answered in {hit:.2f} ms, a new one in {miss:.2f} ms, "
        f"{miss / hit:.0f} × as long. What the lookup itself takes is in `cargo bench --bench results`."
    )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
