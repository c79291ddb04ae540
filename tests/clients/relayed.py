"""A client for a test to run elsewhere: connects to a server with the ICE servers that it is told of, and prints what came.

Usage: relayed.py SIGNALING_URL TOKEN turn|none
"""

import asyncio
import json
import sys

import aiohttp
from aiortc import RTCIceServer
from peer import Peer, Signal
from scene import Scene

RESULTS = 5


async def main(signaling: str, token: str, relay: str) -> dict:
    bearer = {"authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30), headers=bearer) as http:
        async with await Signal.open(http, signaling) as signal:
            welcome = await signal.expect("welcome")
            servers = welcome["ice_servers"] if relay == "turn" else []
            async with Peer(Scene(), "VP8", ice_servers=tuple(RTCIceServer(**it) for it in servers)) as peer:
                signal.peer = peer
                await signal.negotiate(await peer.offer(), options={"return": "exact"})
                if relay == "none":
                    return {"error": (await signal.expect("error"))["code"]}
                await peer.results.more(RESULTS, "results")
                await peer.pictures.more(RESULTS, "pictures")
                pair = peer.transceiver.sender.transport.transport._connection._nominated[1]
                await signal.send("bye")
                await signal.expect("closed")
                return {
                    "username": servers[0]["username"],
                    "results": len(peer.results),
                    "detections": sum(len(it["detections"]) for it in peer.results),
                    "candidate": pair.local_candidate.type,
                }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
