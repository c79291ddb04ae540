"""aiortc as a client of WHIP and WHEP, as RFC 9725 and draft-ietf-wish-whep describe them."""

from dataclasses import dataclass, field

import aiohttp
from aiortc import RTCPeerConnection
from multidict import CIMultiDictProxy

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


@dataclass
class Resource:
    """What a `POST` made."""

    http: aiohttp.ClientSession
    url: str
    tag: str
    answer: str
    links: list[str]
    headers: dict[str, str] = field(default_factory=dict)

    async def patch(self, fragment: str, tag: str | None = None, **headers: str) -> tuple[int, CIMultiDictProxy, str]:
        """Status, headers and body of the answer."""
        sent = FRAGMENT | self.headers | {"If-Match": self.tag if tag is None else tag} | headers
        async with self.http.patch(self.url, data=fragment, headers=sent) as answer:
            return answer.status, answer.headers, await answer.text()

    async def trickle(self, pc: RTCPeerConnection, candidates: list[str]) -> None:
        """Sends candidates of the one transport that there is."""
        sdp = pc.localDescription.sdp.splitlines()
        first = {name: next(it for it in sdp if it.startswith(name)) for name in ("m=", "a=mid:", "a=ice-ufrag:", "a=ice-pwd:")}
        lines = [first["a=ice-ufrag:"], first["a=ice-pwd:"], first["m="], first["a=mid:"]]
        lines += [f"a={it}" for it in candidates] + ["a=end-of-candidates"]
        status, _, body = await self.patch("\r\n".join(lines) + "\r\n")
        assert (status, body) == (204, ""), (status, body)

    async def delete(self) -> int:
        async with self.http.delete(self.url, headers=self.headers) as answer:
            return answer.status


async def post(http: aiohttp.ClientSession, url: str, sdp: str, **headers: str) -> Resource:
    """Sends an offer, and checks what every answer has."""
    async with http.post(url, data=sdp, headers=SDP | headers, allow_redirects=False) as answer:
        text = await answer.text()
        assert answer.status == 201, text
        assert answer.content_type == "application/sdp"
        location, tag = answer.headers["Location"], answer.headers["ETag"]
        assert location.startswith("http://") and tag[0] == tag[-1] == '"' and len(tag) > 2
        return Resource(http, location, tag, text, answer.headers.getall("Link", []), headers)
