"""`saccade doctor --live` beside servers of all kinds: what it believes, what it tells, and how it ends."""

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from server import command, free_port

PAGE = 'process_start_time_seconds {start}\nsaccade_build_info{{version="1"}} 1\nsaccade_processors {processors}\n'


def page(start: int = 1_700_000_000, more: str = "") -> bytes:
    return (PAGE.format(start=start, processors=2) + more).encode()


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler, int], None], context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[str]]]:
    """The URL of a server that answers so (with the number of the request), and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers['user-agent']}")
            answer(self, len(asked))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http{'s' if context else ''}://localhost:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def give(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def doctor(url: str, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return command("doctor", "--live", url, "--window", "2", *words, **environment)


def test_nothing_is_found_in_a_server_that_does_nothing_and_nobody_is_in_between() -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with answering(lambda handler, _: give(handler, page())) as (url, asked):
        told = doctor(url, "--json", http_proxy=nowhere, HTTP_PROXY=nowhere, ALL_PROXY=nowhere)
    assert told.returncode == 0 and json.loads(told.stdout)["findings"] == [], told.stderr
    assert len(asked) == 2 and all(one.startswith("/metrics saccade/") for one in asked), asked


def test_two_processes_behind_one_url_are_told_from_one() -> None:
    # More was counted by the second, so that no counter gives it away.
    drops = 'saccade_frames_total{{stage="ingest",outcome="done"}} {}\nsaccade_frames_dropped_total{{stage="infer",reason="late"}} {}\n'
    pages = [page(1_700_000_000, drops.format(10, 0)), page(1_700_000_100, drops.format(9000, 8000))]
    with answering(lambda handler, number: give(handler, pages[number - 1])) as (url, _):
        told = doctor(url)
    assert told.returncode == 69 and "two processes" in told.stderr and not told.stdout, told


def test_what_is_no_page_of_metrics_is_told() -> None:
    def redirected(handler: BaseHTTPRequestHandler, _: int) -> None:
        if handler.path == "/metrics":
            give(handler, b"", 302, location="/elsewhere/metrics")
        else:
            give(handler, page())

    def endless(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"#" * 65_536)
        except OSError:
            pass

    for answer, part in (
        (lambda handler, _: give(handler, b"<html>"), "line 1 is no metric"),
        (lambda handler, _: give(handler, b"go_goroutines 4\n"), "not the metrics of a Saccade server"),
        (lambda handler, _: give(handler, b"", 503), "answers 503"),
        (redirected, "answers 302"),
        (endless, "more than 16777216 bytes"),
        (lambda handler, _: give(handler, b"\xff\xfe"), "/metrics"),
    ):
        with answering(answer) as (url, asked):
            told = doctor(url)
        assert told.returncode == 69 and part in told.stderr and not told.stdout, told
        assert len(asked) == 1, asked


def test_an_answer_that_never_ends_is_not_waited_for() -> None:
    ended = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not ended.wait(0.2):
                handler.wfile.write(b"#\n")
        except OSError:
            pass

    with answering(trickle) as (url, _):
        began = time.monotonic()
        told = doctor(url)
        took = time.monotonic() - began
        ended.set()
    assert told.returncode == 69 and "does not answer" in told.stderr, told
    assert took < 20, took


def test_https_is_believed_by_its_certificate_alone(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with answering(lambda handler, _: give(handler, page()), context) as (url, asked):
        refused = doctor(url)
        assert refused.returncode == 69 and "ertificate" in refused.stderr and not asked, refused
        told = doctor(url, SSL_CERT_FILE=str(certificate))
        assert told.returncode == 0 and "Nothing limits the server" in told.stdout, told


def test_wrong_arguments_are_told_and_no_secret_with_them() -> None:
    for url in ("127.0.0.1:9180", "ws://127.0.0.1/", "http://", "http://operator:hunter2@127.0.0.1:9"):
        told = doctor(url)
        assert told.returncode == 64 and "http://127.0.0.1:9180" in told.stderr, told
        assert "hunter2" not in told.stderr, told
    for words in (["--window", "1"], ["--window", "3601"], ["--window", "nan"]):
        assert command("doctor", "--live", "http://127.0.0.1:9", *words).returncode == 64, words
