"""Bodies for schemathesis that are more than noise: pictures, session descriptions, fragments, tensors."""

import cv2
import numpy as np
import schemathesis
from hypothesis import strategies as st

OFFER = """v=0
o=- 1 1 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=mid:0
a=sendonly
a=rtcp-mux
a=setup:actpass
a=ice-ufrag:demo
a=ice-pwd:aPasswordOf24LettersOrSo
a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack pli
"""
FRAGMENT = """a=ice-ufrag:demo
a=ice-pwd:aPasswordOf24LettersOrSo
m=video 9 UDP/TLS/RTP/SAVPF 96
a=mid:0
a=candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host
a=end-of-candidates
"""


def picture(ending: str) -> bytes:
    drawn = np.full((48, 64, 3), 200, np.uint8)
    cv2.rectangle(drawn, (10, 10), (40, 30), (30, 60, 200), -1)
    return cv2.imencode(ending, drawn)[1].tobytes()


def cut(whole: bytes) -> st.SearchStrategy[bytes]:
    """The whole, or a part of it with a byte changed."""
    places = st.tuples(st.integers(0, len(whole)), st.integers(0, 255))
    return st.one_of(st.just(whole), places.map(lambda it: whole[: it[0]] + bytes([it[1]])), st.binary(max_size=64))


def lines_of(text: str) -> st.SearchStrategy[bytes]:
    """The text, or some of its lines in another order."""
    lines = text.splitlines(keepends=True)
    some = st.lists(st.sampled_from(lines), max_size=len(lines)).map("".join)
    return st.one_of(st.just(text), some).map(str.encode)


for kind, ending in (("image/jpeg", ".jpg"), ("image/png", ".png"), ("image/webp", ".webp")):
    schemathesis.openapi.media_type(kind, cut(picture(ending)))
schemathesis.openapi.media_type("application/sdp", lines_of(OFFER))
schemathesis.openapi.media_type("application/trickle-ice-sdpfrag", lines_of(FRAGMENT))
schemathesis.openapi.media_type("application/octet-stream", st.binary(max_size=256))
