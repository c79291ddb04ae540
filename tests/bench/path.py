#!/usr/bin/env python3
"""What comes back over a path that narrows and gets wide again.

A server and one publisher, each in a network namespace of its own, joined by a link whose way back carries 2 Mbit/s, then
300 kbit/s, then 2 Mbit/s again (a token bucket of the kernel, with a queue of half a second). Prints a table; needs root.

python3 tests/bench/path.py --saccade target/release/saccade
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

#: Seconds of each phase, and what the way back carries in it, in kbit/s.
PHASES = ((20, 2000), (20, 300), (25, 2000))
#: The first seconds of each, which are told apart: those of the run say nothing of the path and are left out.
SETTLED = (5, 4, 10)
SERVER, CLIENT = "10.213.7.1", "10.213.7.2"
START = 60


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=10)


@contextlib.contextmanager
def namespaces(tag: str):
    """Two hosts with a link between them; their names, and that of the server's end of the link."""
    server, client, near, far = f"{tag}-s", f"{tag}-c", f"{tag}0", f"{tag}1"
    try:
        for name in (server, client):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", near, "netns", server, "type", "veth", "peer", "name", far, "netns", client)
        for name, end, address in ((server, near, SERVER), (client, far, CLIENT)):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", end)
            run("ip", "-n", name, "link", "set", end, "up")
        yield server, client, near
    finally:
        for name in (server, client):
            subprocess.run(("ip", "netns", "delete", name), timeout=10, check=False)


def shape(server: str, link: str, kbits: int) -> None:
    rate = ("tbf", "rate", f"{kbits}kbit", "burst", "6kb", "latency", "500ms")
    run("ip", "netns", "exec", server, "tc", "qdisc", "replace", "dev", link, "root", *rate)


def measure(arguments: argparse.Namespace, server: str, client: str, link: str) -> dict:
    shape(server, link, PHASES[0][1])
    serve = ["ip", "netns", "exec", server, arguments.saccade, "serve", "--insecure", "--listen", f"{SERVER}:8080"]
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "saccade.toml")
        config.write_text('ops.listen = "127.0.0.1:0"\n')
        log = open(arguments.log, "w", encoding="utf-8") if arguments.log else subprocess.DEVNULL
        process = subprocess.Popen([*serve, "--config", str(config)], stdout=log, stderr=log)
        try:
            probe = ["ip", "netns", "exec", client, "curl", "-sf", "-m", "2", "-o", "/dev/null", f"http://{SERVER}:8080/v1/models"]
            due = time.monotonic() + START
            while subprocess.run(probe, check=False, timeout=10).returncode:
                if time.monotonic() > due or process.poll() is not None:
                    raise SystemExit("the server did not start")
                time.sleep(0.2)
            seconds = sum(length for length, _ in PHASES)
            bench = ["ip", "netns", "exec", client, arguments.saccade, "bench", "--url", f"ws://{SERVER}:8080/v1/signal",
                     "--clip", "scene", "--codec", "h264", "--return", "predicted", "--probe", "1",
                     "--duration", f"{seconds}s", "--json", "-"]  # fmt: skip
            begun = subprocess.Popen(bench, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            at = arguments.lead
            for (length, _), (_, kbits) in itertools.pairwise(PHASES):
                at += length
                threading.Timer(at, shape, (server, link, kbits)).start()
            out, error = begun.communicate(timeout=seconds + START)
            if begun.returncode:
                raise SystemExit(f"{out[-2000:]}{error}")
            return json.loads(out)
        finally:
            process.terminate()
            process.wait(timeout=40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--saccade", required=True)
    parser.add_argument("--lead", type=float, default=1.0, help="seconds from the generator's start to its first frame")
    parser.add_argument("--log", help="where the server's log goes")
    parser.add_argument("--json", help="where each second's figures go")
    arguments = parser.parse_args()
    arguments.saccade = str(pathlib.Path(arguments.saccade).resolve())
    with namespaces("scpath") as (server, client, link):
        figures = measure(arguments, server, client, link)
    timeline = figures["timeline"]
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(timeline, indent=1))
    begin, rows = 0, []
    for (length, kbits), settled in zip(PHASES, SETTLED, strict=True):
        seconds = timeline[begin : begin + length]
        begin += length
        rows.append((kbits, seconds[:settled], seconds[settled:], settled))
    print("| way back | returned | frames a second | longest latency | results a second | longest p95 of a second |")
    print("|---|---|---|---|---|---|")
    for kbits, first, rest, settled in rows:
        if first is not rows[0][1]:
            print(row(f"{kbits} kbit/s, the first {settled} s", first))
        print(row(f"{kbits} kbit/s, the rest", rest))
    before = statistics.median(s["returned_kbps"] for s in rows[0][2])
    last = rows[2][1] + rows[2][2]
    back = next((i for i, s in enumerate(last) if s["returned_kbps"] >= 0.9 * before and s["frames_returned"] >= 27), None)
    print(f"\n90 % of {before:.0f} kbit/s back after: {'never' if back is None else f'{back + 1} s'}")


def row(name: str, seconds: list[dict]) -> str:
    mean = lambda key: statistics.mean(s[key] for s in seconds)  # noqa: E731
    longest = lambda key: max((s[key] or 0 for s in seconds), default=0)  # noqa: E731
    return (
        f"| {name} | {mean('returned_kbps'):.0f} kbit/s | {mean('frames_returned'):.1f} | {longest('video_latency_max_ms'):.0f} ms"
        f" | {mean('results'):.1f} | {longest('result_latency_p95_ms'):.0f} ms |"
    )


if __name__ == "__main__":
    sys.exit(main())
