"""An RTSP camera made of GStreamer's server, for the system's Python (python3-gi). Its only argument is JSON with `port`
(0: any free one), `pictures` (a file of I420 frames of 640x480 that it shows again and again), and perhaps `auth` ("basic"
or "digest": user `viewer`, password `s3cret`), `transport` ("tcp" or "udp" alone) and `stream`: "h264", "sdp" and "band" are
H.264 whose parameter sets are described and sent, described alone and sent alone, "jpeg" is Motion JPEG. It prints its
port, takes `pause` and `resume` as lines, and ends with its standard input."""

import json
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

H264 = (
    "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 bitrate=4000"
    " ! video/x-h264,profile=constrained-baseline ! rtph264pay pt=96"
)
# What is described of a stream is what its last element says.
STREAMS = {
    "h264": H264 + " config-interval=-1 name=pay0",
    "sdp": H264 + " config-interval=0 name=pay0",
    "band": H264 + " config-interval=-1 ! capssetter name=pay0 replace=true join=false"
    ' caps="application/x-rtp,media=video,payload=96,clock-rate=90000,encoding-name=H264,packetization-mode=(string)1"',
    "jpeg": "jpegenc ! rtpjpegpay pt=26 name=pay0",
}


class Factory(GstRtspServer.RTSPMediaFactory):
    def __init__(self, settings: dict[str, object]) -> None:
        super().__init__()
        self.set_shared(True)
        self.set_launch(
            f"( multifilesrc location={settings['pictures']} loop=true"
            " ! rawvideoparse width=640 height=480 format=i420 framerate=15/1 ! identity sync=true"
            f" ! valve name=valve ! {STREAMS[str(settings.get('stream', 'h264'))]}"
            " audiotestsrc is-live=true ! mulawenc ! rtppcmupay name=pay1 pt=0 )"
        )
        transports = {
            "tcp": GstRtsp.RTSPLowerTrans.TCP,
            "udp": GstRtsp.RTSPLowerTrans.UDP,
            "both": GstRtsp.RTSPLowerTrans.TCP | GstRtsp.RTSPLowerTrans.UDP,
        }
        self.set_protocols(transports[str(settings.get("transport", "both"))])
        permissions = GstRtspServer.RTSPPermissions()
        for right in ("media.factory.access", "media.factory.construct"):
            permissions.add_permission_for_role("viewer", right, True)
        self.set_permissions(permissions)


def authentication(method: str) -> GstRtspServer.RTSPAuth:
    auth, token = GstRtspServer.RTSPAuth(), GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if method == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest("viewer", "s3cret", token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic("viewer", "s3cret"), token)
    return auth


def main(settings: dict[str, object]) -> None:
    Gst.init(None)
    server, factory, valves = GstRtspServer.RTSPServer(), Factory(settings), []
    server.set_address("127.0.0.1")
    server.set_service(str(settings["port"]))
    if method := settings.get("auth"):
        server.set_auth(authentication(str(method)))
    factory.connect("media-configure", lambda _, media: valves.append(media.get_element().get_by_name("valve")))
    server.get_mount_points().add_factory("/stream", factory)
    loop = GLib.MainLoop()
    assert server.attach(None) != 0, "the port cannot be bound"
    print(server.get_bound_port(), flush=True)

    def obey() -> None:
        for line in sys.stdin:
            for valve in valves:
                valve.set_property("drop", line.strip() == "pause")
        loop.quit()

    threading.Thread(target=obey, daemon=True).start()
    loop.run()


main(json.loads(sys.argv[1]))
