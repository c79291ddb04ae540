// Runs in the page before its own scripts: lets a test ask, as the receiver of the returned video, for a keyframe. The
// browser then sends a PLI, as it does by itself after losses.
const worker = new Worker(
  URL.createObjectURL(
    new Blob([
      `onrtctransform = ({ transformer }) => {
         transformer.readable.pipeTo(transformer.writable);
         onmessage = () => transformer.sendKeyFrameRequest().then(() => postMessage("asked"), (e) => postMessage(String(e)));
       };`,
    ]),
  ),
);

globalThis.askForKeyframe = () =>
  new Promise((done) => {
    worker.onmessage = ({ data }) => done(data);
    worker.postMessage(0);
  });

/** Keyframes that the browser has decoded, and PLIs that it has sent. */
globalThis.keyframes = async () => {
  for (const report of (await globalThis.tapped.getStats()).values()) {
    if (report.type === "inbound-rtp") return { decoded: report.keyFramesDecoded, asked: report.pliCount };
  }
  return { decoded: 0, asked: 0 };
};

const Native = RTCPeerConnection;
globalThis.RTCPeerConnection = class extends Native {
  constructor(...configuration) {
    super(...configuration);
    this.addEventListener("track", ({ receiver }) => {
      globalThis.tapped = receiver;
      receiver.transform = new RTCRtpScriptTransform(worker);
    });
  }
};
