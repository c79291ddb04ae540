"""nginx and HAProxy with the configurations that deploy/ has for operators, on free ports."""

import os
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Self

from server import ROOT, free_port

DEPLOY = ROOT / "deploy"
# Seconds that a start or an end may take.
LIMIT = 20.0


def program(name: str) -> str:
    found = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    assert found, f"there is no {name}: scripts/setup.sh test installs it"
    return found


def replaced(text: str, *changes: tuple[str, str]) -> str:
    """The text with what an operator changes changed; each pattern has to be there."""
    for pattern, value in changes:
        text, count = re.subn(pattern, value, text)
        assert count > 0, f"there is no {pattern}"
    return text


def certify(folder: Path) -> None:
    """Puts cert.pem, key.pem and both of them in one file into the folder."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(words, check=True, capture_output=True)
    (folder / "both.pem").write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())


class Front:
    """A proxy that ends TLS at `url`. `http` and `ops` are the ports of the server behind it."""

    name = ""

    def __init__(self, port: int, http: int, ops: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="saccade-proxy-"))
        self.port, self.plain = port, free_port()
        self.url = f"https://localhost:{port}"
        self.ws = f"wss://localhost:{port}/v1/signal"
        certify(self.folder)
        self.trusting = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
        self.pid: int | None = None
        self.configure(http, ops)

    def configure(self, http: int, ops: int) -> None:
        raise NotImplementedError

    def file(self) -> Path:
        """Its configuration."""
        raise NotImplementedError

    def hasten(self) -> None:
        """Has a request and its answer take two seconds at most in place of sixty, and leaves all else as it is."""
        text = replaced(self.file().read_text(), (r"\b60s\b", "2s"))
        self.file().write_text(text)

    def share(self, http: int, ops: int) -> None:
        """Has a second server, at these ports, take requests as well."""
        raise NotImplementedError

    def words(self, check: bool) -> list[str]:
        raise NotImplementedError

    def logged(self, part: str) -> str:
        """What its log of requests has so far, with this in it."""
        raise NotImplementedError

    def complaints(self) -> str:
        """What it wrote of trouble."""
        return ""

    def check(self) -> subprocess.CompletedProcess:
        """Has it check its configuration."""
        return subprocess.run(self.words(check=True), capture_output=True, text=True, timeout=LIMIT)

    def __enter__(self) -> Self:
        # It goes into the background when its ports are bound.
        done = subprocess.run(
            self.words(check=False), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=LIMIT
        )
        if done.returncode != 0:
            said = self.check()
            self.close()
            raise AssertionError(f"{self.name} did not start: {said.stdout}{said.stderr}")
        self.pid = int((self.folder / "pid").read_text())
        return self

    def close(self) -> None:
        """Removes what it made."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        if self.pid is not None:
            try:
                ended = os.pidfd_open(self.pid)
            except ProcessLookupError:
                ended = None
            if ended is not None:
                os.kill(self.pid, signal.SIGTERM)
                if not select.select([ended], [], [], LIMIT)[0]:
                    os.kill(self.pid, signal.SIGKILL)
                os.close(ended)
        self.close()


class Nginx(Front):
    name = "nginx"

    def configure(self, http: int, ops: int) -> None:
        folder = self.folder
        for name in ("conf.d", "cache", "log", "temporary"):
            (folder / name).mkdir()
        site = replaced(
            (DEPLOY / "nginx" / "saccade.conf").read_text(),
            (r"listen 80;", f"listen 127.0.0.1:{self.plain};"),
            (r"listen 443 ssl http2;", f"listen 127.0.0.1:{self.port} ssl http2;"),
            (r"server_name vision\.example;", "server_name localhost;"),
            (r"/etc/saccade/tls", str(folder)),
            (r"/var/cache/nginx", str(folder / "cache")),
            (r"/var/log/nginx", str(folder / "log")),
        )
        (folder / "conf.d" / "saccade.conf").write_text(site)
        self.pass_to(http)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        folders = " ".join(f"{kind}_temp_path {folder}/temporary/{kind};" for kind in kinds)
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user} worker_processes 1; pid {folder}/pid; error_log {folder}/log/error.log warn;\n"
            f"events {{ worker_connections 512; }}\n"
            f"http {{ {folders} include {folder}/conf.d/*.conf; }}\n"
        )

    def file(self) -> Path:
        return self.folder / "conf.d" / "saccade.conf"

    def share(self, http: int, ops: int) -> None:
        file = self.folder / "conf.d" / "upstream.conf"
        file.write_text(replaced(file.read_text(), (r"(?m)^( *)server .*$", rf"\g<0>\n\1server 127.0.0.1:{http} max_fails=0;")))
        # Each of them would count by itself, were they not told to count together.
        main = self.folder / "nginx.conf"
        main.write_text(replaced(main.read_text(), (r"worker_processes 1;", "worker_processes 4;")))

    def pass_to(self, http: int) -> None:
        """Has the configuration name the server at this port."""
        upstream = (DEPLOY / "nginx" / "upstream.conf").read_text()
        changed = replaced(upstream, (r"127\.0\.0\.1:8080", f"127.0.0.1:{http}"))
        (self.folder / "conf.d" / "upstream.conf").write_text(changed)

    def reload(self) -> None:
        """Has it read its configuration again, as `nginx -s reload` does."""
        done = subprocess.run([*self.words(check=False), "-s", "reload"], capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stderr

    def words(self, check: bool) -> list[str]:
        words = [program("nginx"), "-p", str(self.folder), "-e", str(self.folder / "log" / "start.log")]
        return [*words, "-c", str(self.folder / "nginx.conf"), *(["-t"] if check else [])]

    def logged(self, part: str) -> str:
        # Its one worker writes a request's line before it looks at the next request.
        text = (self.folder / "log" / "saccade.log").read_text()
        assert part in text, f"there is no {part} in {text}"
        return text

    def complaints(self) -> str:
        return (self.folder / "log" / "error.log").read_text()


class Haproxy(Front):
    name = "HAProxy"

    def configure(self, http: int, ops: int) -> None:
        folder = self.folder
        self.sink = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sink.bind(str(folder / "log"))
        self.lines: list[str] = []
        self._came = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        text = replaced(
            (DEPLOY / "haproxy" / "haproxy.cfg").read_text(),
            (r"log stdout format raw", f"log {folder}/log format raw"),
            (r"bind :80\b", f"bind 127.0.0.1:{self.plain}"),
            (r"bind :443\b", f"bind 127.0.0.1:{self.port}"),
            (r"/etc/saccade/tls", str(folder)),
            (r"127\.0\.0\.1:8080", f"127.0.0.1:{http}"),
            (r"check port 9180", f"check port {ops}"),
        )
        self.file().write_text(text)

    def file(self) -> Path:
        return self.folder / "haproxy.cfg"

    def share(self, http: int, ops: int) -> None:
        more = rf"\g<0>\n    server two 127.0.0.1:{http} check port {ops} inter 2s"
        self.file().write_text(replaced(self.file().read_text(), (r"(?m)^    server one \S+ check port.*$", more)))

    def words(self, check: bool) -> list[str]:
        how = ["-c"] if check else ["-D", "-p", str(self.folder / "pid")]
        return [program("haproxy"), *how, "-f", str(self.folder / "haproxy.cfg")]

    def _read(self) -> None:
        # An empty message is the end: HAProxy sends none.
        while line := self.sink.recv(65536):
            with self._came:
                self.lines.append(line.decode())
                self._came.notify_all()

    def logged(self, part: str) -> str:
        with self._came:
            came = self._came.wait_for(lambda: any(part in it for it in self.lines), LIMIT)
            assert came, f"there is no {part} in {self.lines}"
            return "".join(self.lines)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self.folder / "log"))
        self._reader.join()
        self.sink.close()
        super().close()


