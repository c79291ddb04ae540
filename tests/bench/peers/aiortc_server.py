#!/usr/bin/env python3
"""The peer that a user would write instead: aiortc + ONNX Runtime, the shape of aiortc's own server example.

POST /offer {"sdp","type"} -> {"sdp","type"}. Each incoming video track is decoded, run through a YOLOX or YOLOv8 network
(the shape of its output tells which), drawn on, re-encoded and sent back; each processed frame also yields one JSON message on every data channel of the peer:
{"rtp_timestamp": int, "detections": [{"box":[x1,y1,x2,y2],"class_id":int,"score":float}], "timing":{"total_ms":float}}.

Set-up: python3 -m venv v && v/bin/pip install aiortc==1.16.0 aiohttp onnxruntime==1.30.0 numpy opencv-python-headless
Run:    v/bin/python aiortc_server.py --model ../models/yolox_nano_416.onnx --port 8099 [--latest] [--threads 1]
--latest keeps only the newest frame (what a careful user adds); without it frames queue, as in the plain example.
"""
import argparse, asyncio, json, os, time
import cv2, numpy as np, onnxruntime as ort
from aiohttp import web
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from av import VideoFrame

ap = argparse.ArgumentParser()
ap.add_argument("--model", required=True); ap.add_argument("--port", type=int, default=8099)
ap.add_argument("--threads", type=int, default=0, help="ONNX Runtime intra-op threads, 0 = its default")
ap.add_argument("--latest", action="store_true"); ap.add_argument("--score", type=float, default=0.35)
args = ap.parse_args()
so = ort.SessionOptions(); so.intra_op_num_threads = args.threads
net = ort.InferenceSession(args.model, so, providers=["CPUExecutionProvider"])
name, (_, _, H, W) = net.get_inputs()[0].name, net.get_inputs()[0].shape
grid, stride = [], []
for s in (8, 16, 32):
    ys, xs = np.mgrid[0:H // s, 0:W // s]
    grid.append(np.stack([xs, ys], -1).reshape(-1, 2)); stride.append(np.full((H // s * (W // s), 1), s))
grid, stride = np.concatenate(grid), np.concatenate(stride)
out_shape = net.get_outputs()[0].shape
V8 = isinstance(out_shape[2], int) and out_shape[1] < out_shape[2]
pcs, stats = set(), {"frames": 0, "infer_s": 0.0, "infer_cpu_s": 0.0, "total_s": 0.0}


def detect(img):
    """img: BGR uint8 [h,w,3] -> list of (x1,y1,x2,y2,score,class) in pixels of img."""
    h, w = img.shape[:2]; r = min(W / w, H / h); nh, nw = int(h * r), int(w * r)
    top, left = ((H - nh) // 2, (W - nw) // 2) if V8 else (0, 0)
    canvas = np.full((H, W, 3), 114, np.uint8)
    canvas[top : top + nh, left : left + nw] = cv2.resize(img, (nw, nh))
    if V8:
        x = cv2.dnn.blobFromImage(canvas, 1 / 255.0, swapRB=True)
    else:
        x = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], dtype=np.float32)
    t, c = time.perf_counter(), time.thread_time(); o = net.run(None, {name: x})[0][0]
    stats["infer_s"] += time.perf_counter() - t; stats["infer_cpu_s"] += time.thread_time() - c
    if V8:
        o = o.T
    sc = o[:, 4:] if V8 else o[:, 4:5] * o[:, 5:]; cls = sc.argmax(1); best = sc[np.arange(len(sc)), cls]; keep = best > args.score
    if not keep.any():
        return []
    if V8:
        xy, wh = o[keep, :2] - [left, top], o[keep, 2:4]
    else:
        xy = (o[keep, :2] + grid[keep]) * stride[keep]; wh = np.exp(o[keep, 2:4]) * stride[keep]
    boxes = np.concatenate([xy - wh / 2, wh], 1) / r
    idx = cv2.dnn.NMSBoxes((boxes + np.stack([cls[keep] * 4096.0] * 2 + [np.zeros(keep.sum())] * 2, 1)).tolist(), best[keep].tolist(), args.score, 0.45)
    out = []
    for i in np.array(idx).reshape(-1):
        bx, by, bw, bh = boxes[i]; out.append((bx, by, bx + bw, by + bh, float(best[keep][i]), int(cls[keep][i])))
    return out


class Annotate(MediaStreamTrack):
    kind = "video"

    def __init__(self, track, pc):
        super().__init__(); self.track, self.pc, self.newest = track, pc, None
        if args.latest:
            self.have = asyncio.Event(); asyncio.ensure_future(self.pump())

    async def pump(self):
        try:
            while True:
                self.newest = await self.track.recv(); self.have.set()
        except MediaStreamError:
            self.stop()

    async def recv(self):
        if args.latest:
            await self.have.wait(); self.have.clear(); frame = self.newest
        else:
            frame = await self.track.recv()
        t = time.perf_counter(); img = frame.to_ndarray(format="bgr24"); dets = await asyncio.to_thread(detect, img)
        for x1, y1, x2, y2, s, c in dets:
            cv2.rectangle(img, (int(x1), int(y1)), (int(x2), int(y2)), (0, 255, 0), 2)
            cv2.putText(img, f"{c} {s:.2f}", (int(x1), max(12, int(y1) - 4)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 255, 0), 1)
        out = VideoFrame.from_ndarray(img, format="bgr24"); out.pts, out.time_base = frame.pts, frame.time_base
        dt = time.perf_counter() - t; stats["frames"] += 1; stats["total_s"] += dt
        msg = json.dumps({"rtp_timestamp": frame.pts, "timing": {"total_ms": dt * 1e3}, "detections": [
            {"box": [float(a) for a in d[:4]], "score": d[4], "class_id": d[5]} for d in dets]})
        for ch in self.pc.channels:
            if ch.readyState == "open":
                ch.send(msg)
        return out


async def offer(req):
    p = await req.json(); pc = RTCPeerConnection(); pc.channels = []; pcs.add(pc)
    pc.on("datachannel", lambda ch: pc.channels.append(ch))
    pc.on("track", lambda t: pc.addTrack(Annotate(t, pc)) if t.kind == "video" else None)

    @pc.on("connectionstatechange")
    async def _():
        if pc.connectionState in ("failed", "closed"):
            await pc.close(); pcs.discard(pc)
    await pc.setRemoteDescription(RTCSessionDescription(p["sdp"], p["type"]))
    await pc.setLocalDescription(await pc.createAnswer())
    return web.json_response({"sdp": pc.localDescription.sdp, "type": pc.localDescription.type})


async def get_stats(_):
    t = os.times(); n = max(1, stats["frames"])
    return web.json_response({**stats, "cpu_s": t.user + t.system, "infer_ms": 1e3 * stats["infer_s"] / n, "infer_cpu_ms": 1e3 * stats["infer_cpu_s"] / n, "total_ms": 1e3 * stats["total_s"] / n, "peers": len(pcs)})

app = web.Application(); app.router.add_post("/offer", offer); app.router.add_get("/stats", get_stats)
web.run_app(app, port=args.port, host="127.0.0.1")
