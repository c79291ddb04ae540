"""A viewer in a process of its own, so that a test can halt it: watches the WHEP endpoint in its only argument."""

import asyncio
import sys

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription


async def main(url: str) -> None:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("video", direction="recvonly")
    watching: asyncio.Future = asyncio.get_running_loop().create_future()
    pc.on("track", watching.set_result)
    await pc.setLocalDescription(await pc.createOffer())
    async with aiohttp.ClientSession() as http:
        headers = {"Content-Type": "application/sdp"}
        async with http.post(url, data=pc.localDescription.sdp, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            await pc.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))
    track = await watching
    await track.recv()
    print("watching", flush=True)
    while True:
        await track.recv()


asyncio.run(main(sys.argv[1]))
