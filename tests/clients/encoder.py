"""A WHIP encoder made of GStreamer's webrtcbin, for the system's Python (python3-gi): publishes a test picture to the
endpoint in its first argument, says where its resource is, and goes on until it is ended. The second argument is the
codec, H264 or VP8."""

import sys
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC

CODECS = {
    "H264": "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! video/x-h264,profile=constrained-baseline"
    " ! rtph264pay config-interval=-1 aggregate-mode=zero-latency ! application/x-rtp,media=video,encoding-name=H264,payload=96",
    "VP8": "vp8enc deadline=1 keyframe-max-dist=30 ! rtpvp8pay ! application/x-rtp,media=video,encoding-name=VP8,payload=96",
}


def main(url: str, codec: str) -> None:
    Gst.init(None)
    pipeline = Gst.parse_launch(
        "webrtcbin name=peer bundle-policy=max-bundle videotestsrc is-live=true pattern=ball"
        f" ! video/x-raw,width=320,height=240,framerate=15/1 ! {CODECS[codec]} ! peer."
    )
    peer, loop = pipeline.get_by_name("peer"), GLib.MainLoop()

    def offer(promise: Gst.Promise, *_: object) -> None:
        promise.wait()
        reply = promise.get_reply()
        description = reply.get_value("offer")
        peer.emit("set-local-description", description, Gst.Promise.new())

    def gathered(*_: object) -> None:
        if peer.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            return
        sdp = peer.get_property("local-description").sdp.as_text()
        request = urllib.request.Request(url, sdp.encode(), {"Content-Type": "application/sdp"}, method="POST")
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 201
            location, text = answer.headers["Location"], answer.read().decode()
        _, description = GstSdp.SDPMessage.new_from_text(text)
        answered = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, description)
        peer.emit("set-remote-description", answered, Gst.Promise.new())
        print(location, flush=True)

    peer.connect(
        "on-negotiation-needed",
        lambda it: it.emit("create-offer", None, Gst.Promise.new_with_change_func(offer, None)),
    )
    # An encoder takes nothing back.
    peer.emit("get-transceiver", 0).set_property("direction", GstWebRTC.WebRTCRTPTransceiverDirection.SENDONLY)
    peer.connect("notify::ice-gathering-state", lambda *_: GLib.idle_add(gathered))
    pipeline.set_state(Gst.State.PLAYING)
    loop.run()


main(*sys.argv[1:])
