"""A collector of traces: OTLP over HTTP, read with the messages that OpenTelemetry publishes."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

# Seconds that spans may take to come.
LIMIT = 20.0


class Collector:
    """Keeps the spans that come, by the id of their trace. `refuse` says what is answered instead: a status, or an event that
    is waited for first."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: list[int] = []
        self.retry_after: str | None = None
        self.rejects = 0
        self.hold: threading.Event | None = None
        self.asked = 0
        self._came = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = collector.take(self.path, dict(self.headers.items()), body)
                answer = ExportTraceServiceResponse()
                if collector.rejects:
                    answer.partial_success.rejected_spans = collector.rejects
                payload = answer.SerializeToString() if status == 200 else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(payload)))
                if collector.retry_after is not None:
                    self.send_header("Retry-After", collector.retry_after)
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.hold:
            self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(LIMIT)

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        with self._came:
            self.asked += 1
            self._came.notify_all()
        if self.hold:
            self.hold.wait(LIMIT)
        assert (path, headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        request = ExportTraceServiceRequest.FromString(body)
        with self._came:
            status = self.statuses.pop(0) if self.statuses else 200
            if status == 200:
                self.bodies.append(body)
                self.headers.append({key.lower(): value for key, value in headers.items()})
                for resource in request.resource_spans:
                    attributes = {it.key: it.value.string_value for it in resource.resource.attributes}
                    self.resources.append(attributes)
                    for scope in resource.scope_spans:
                        assert scope.scope.name == "saccade"
                        self.spans.extend(scope.spans)
            self._came.notify_all()
        return status

    def until(self, enough: Callable[[], object], what: str, limit: float = LIMIT) -> None:
        """Waits until `enough` holds of what came; not for the event loop's own thread."""
        end = time.monotonic() + limit
        with self._came:
            while not enough():
                left = end - time.monotonic()
                came = sorted({it.name for it in self.spans})
                assert left > 0, f"no {what} within {limit} s; {self.asked} requests, {len(self.spans)} spans came: {came}"
                self._came.wait(left)

    def named(self, name: str) -> list[Span]:
        return [it for it in self.spans if it.name == name]

    def parts(self, span: Span) -> list[Span]:
        """Spans that are parts of this one, as they began."""
        parts = [it for it in self.spans if it.parent_span_id == span.span_id and it.trace_id == span.trace_id]
        return sorted(parts, key=lambda it: (it.start_time_unix_nano, it.end_time_unix_nano))


def value(span: Span, key: str) -> str | int | bool | float | None:
    """An attribute."""
    for it in span.attributes:
        if it.key == key:
            return getattr(it.value, it.value.WhichOneof("value"))
    return None


def millis(span: Span) -> float:
    """How long it took."""
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
