/**
 * Sender-side transform: passes every encoded frame on untouched and tells the page its RTP timestamp and when it was
 * seen, in milliseconds since 1970 (a worker's `performance.now()` has another zero than the page's).
 */
interface FrameTransformer {
  readable: ReadableStream<RTCEncodedVideoFrame>;
  writable: WritableStream<RTCEncodedVideoFrame>;
}

interface TransformerScope {
  onrtctransform: ((event: { transformer: FrameTransformer }) => void) | null;
  postMessage(message: { rtpTimestamp: number; seenAt: number }): void;
}

const scope = self as unknown as TransformerScope;

scope.onrtctransform = ({ transformer }) => {
  const watch = new TransformStream<RTCEncodedVideoFrame, RTCEncodedVideoFrame>({
    transform(frame, controller) {
      const seenAt = performance.timeOrigin + performance.now();
      controller.enqueue(frame);
      const { rtpTimestamp } = frame.getMetadata() as { rtpTimestamp?: number };
      scope.postMessage({ rtpTimestamp: rtpTimestamp ?? frame.timestamp, seenAt });
    },
  });
  transformer.readable.pipeThrough(watch).pipeTo(transformer.writable).catch(() => {
    // The sender was closed; there is nothing left to pass on.
  });
};
