#!/usr/bin/env python3
"""Sends live video to a Saccade server and prints what it finds in each frame.

    pip install aiohttp aiortc
    python live.py video.mp4                                  # a file, over and over
    python live.py /dev/video0 --options '{"model": "ppe-nano", "score_threshold": 0.6}'
    python live.py video.mp4 --save annotated.mp4 --seconds 20  # the annotated video, too
    python live.py video.mp4 --count 100 --json               # a hundred results, each as the JSON that it came as

The server is at http://127.0.0.1:8080, or where `--url` or SACCADE_URL says; a token is taken from SACCADE_TOKEN. Options
are those of sessions: `model`, `return`, `budget_ms`, `zones`, `lines`, `rules` and the rest. One request opens the session;
results and events come over data channels. Exit codes: 0 done, 1 refused or lost, 2 wrong arguments.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Any

import aiohttp
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer, MediaRecorder
from aiortc.mediastreams import MediaStreamTrack

# Seconds from the answer to the first result, and between two of them, before the session counts as lost.
PATIENCE = 20.0


class Failed(Exception):
    """What went wrong, and what to do."""


def opened(source: str) -> MediaPlayer:
    """A video file, played over and over, or a camera of this machine."""
    try:
        if source.startswith("/dev/video"):
            player = MediaPlayer(source, format="v4l2", options={"video_size": "640x480", "framerate": "30"})
        else:
            player = MediaPlayer(source, loop=True)
    # An assertion is what aiortc has for a file that cannot be played over and over.
    except (OSError, ValueError, AssertionError) as error:
        raise Failed(f"{source} cannot be opened as video; is it a file that FFmpeg plays, or a free camera? ({error})") from error
    if player.video is None:
        raise Failed(f"{source} has no video; name a file that has, or a camera such as /dev/video0.")
    return player


class Live:
    """One session. `results` and `events` are what came of it and was not taken yet."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http, self.url = http, url.rstrip("/")
        self.peer = RTCPeerConnection()
        self.results: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.session_id: str | None = None
        self.returned: list[MediaStreamTrack] = []
        # Results may be lost: the next one is newer. Events may not.
        self.listen(self.peer.createDataChannel("results", ordered=False, maxRetransmits=0))
        self.listen(self.peer.createDataChannel("events"))
        self.peer.on("track", self.returned.append)
        self.peer.on("connectionstatechange", self.on_state)

    def listen(self, channel: Any) -> None:
        channel.on("message", lambda text: self.results.put_nowait(json.loads(text)))

    async def on_state(self) -> None:
        if self.peer.connectionState in ("failed", "closed"):
            self.results.put_nowait(None)

    async def publish(self, track: MediaStreamTrack, options: dict[str, Any]) -> None:
        """Opens the session: one offer, one answer, with all candidates in both."""
        wants_video = options.get("return") != "results"
        self.peer.addTransceiver(track, direction="sendrecv" if wants_video else "sendonly")
        await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = {"type": "offer", "sdp": self.peer.localDescription.sdp, "options": options}
        async with self.http.post(f"{self.url}/v1/offer", json=offer) as answer:
            said = await answer.json(content_type=None)
            if answer.status != 200:
                wait = answer.headers.get("Retry-After")
                later = f" (try again in {wait} s)" if wait else ""
                raise Failed(f"{said['code']}: {said['detail']}{later}")
        self.session_id = said["session_id"]
        await self.peer.setRemoteDescription(RTCSessionDescription(said["sdp"], said["type"]))

    async def next(self) -> dict[str, Any]:
        """The next result or event."""
        try:
            said = await asyncio.wait_for(self.results.get(), PATIENCE)
        except TimeoutError:
            raise Failed(f"Nothing came for {PATIENCE:.0f} s; does the video go on, and does the network let UDP or TCP through to the server's media port?") from None
        if said is None:
            raise Failed("The connection was lost, or the server ended the session; start again.")
        return said

    async def close(self) -> None:
        """Ends the session at the server, and then here."""
        if self.session_id:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self.http.delete(f"{self.url}/v1/sessions/{self.session_id}")
        await self.peer.close()


def words_of(said: dict[str, Any]) -> str:
    """A result or an event in one line."""
    if said["type"] != "result":
        about = {name: value for name, value in said.items() if name not in ("type", "rtp_timestamp") and value is not None}
        return f"{said['type']}: " + ", ".join(f"{name} {value}" for name, value in about.items())
    found = [f"{it['class']} {it['score']:.2f} at {it['box']}" for it in said.get("detections", [])]
    late = "" if said["met"] else ", too late"
    return f"frame {said['frame_id']} in {said['timing_ms']['total']:.0f} ms{late}: " + (", ".join(found) or "nothing")


async def run(asked: argparse.Namespace) -> None:
    options = asked.options if asked.save else {"return": "results"} | asked.options
    player = opened(asked.source)
    headers = {"Authorization": f"Bearer {asked.token}"} if asked.token else {}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=30)) as http:
        live, recorder = Live(http, asked.url), None
        try:
            await live.publish(player.video, options)
            print(f"session {live.session_id}", file=sys.stderr, flush=True)
            if asked.save:
                recorder = MediaRecorder(asked.save)
                for track in live.returned:
                    recorder.addTrack(track)
                await recorder.start()
            results = 0
            async with asyncio.timeout(asked.seconds):
                while asked.count is None or results < asked.count:
                    said = await live.next()
                    results += said["type"] == "result"
                    print(json.dumps(said) if asked.json else words_of(said), flush=True)
        except TimeoutError:
            if asked.seconds is None:
                raise Failed(f"{asked.url} took too long to answer; try again.") from None
        except aiohttp.ClientConnectionError as error:
            raise Failed(f"No answer from {asked.url}; is the server running, and is the address right? ({error})") from error
        finally:
            if recorder:
                await recorder.stop()
            await live.close()
            player.video.stop()


def options_of(text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        if isinstance(options := json.loads(text), dict):
            return options
    raise argparse.ArgumentTypeError('options are a JSON object, such as {"model": "ppe-nano"}')


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a video file, or a camera such as /dev/video0")
    parser.add_argument("--url", default=os.environ.get("SACCADE_URL", "http://127.0.0.1:8080"), help="the server")
    parser.add_argument("--options", type=options_of, default={}, help="session options as a JSON object")
    parser.add_argument("--save", help="a file for the annotated video, such as annotated.mp4")
    parser.add_argument("--count", type=int, help="end after so many results")
    parser.add_argument("--seconds", type=float, help="end after so long")
    parser.add_argument("--json", action="store_true", help="print JSON as it came")
    asked = parser.parse_args(words)
    asked.token = os.environ.get("SACCADE_TOKEN")
    return asked


async def interruptible(asked: argparse.Namespace) -> None:
    """Runs until it is done or asked to end, and ends the session in both cases."""
    task = asyncio.ensure_future(run(asked))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main() -> int:
    try:
        asyncio.run(interruptible(arguments()))
    except Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
