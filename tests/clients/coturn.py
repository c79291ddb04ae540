"""coturn with the configuration that deploy/ has for operators."""

import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Self

from netns import Network
from server import ROOT

CONFIGURATION = ROOT / "deploy" / "coturn" / "turnserver.conf"
SECRET = "a secret that the relay has, too"
# Seconds that its start may take.
LIMIT = 20.0


class Coturn:
    """A TURN server on a network's server side. `certificate` is what clients have to trust to use TLS."""

    def __init__(self, network: Network) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="saccade-coturn-"))
        self.certificate = self.folder / "cert.pem"
        address = network.SERVER
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        words += ["-keyout", self.folder / "key.pem", "-out", self.certificate, "-days", "2", "-subj", "/CN=turn.example"]
        words += ["-addext", f"subjectAltName=IP:{address}", "-addext", "basicConstraints=critical,CA:FALSE"]
        subprocess.run(words, check=True, capture_output=True)
        text = CONFIGURATION.read_text()
        for pattern, value in [
            ("(listening-ip|relay-ip|allowed-peer-ip)=.*", rf"\1={address}"),
            ("static-auth-secret=.*", f"static-auth-secret={SECRET}"),
            ("(cert|pkey)=/etc/coturn", rf"\1={self.folder}"),
        ]:
            text, count = re.subn(f"(?m)^{pattern}", value, text)
            assert count > 0, pattern
        (self.folder / "turnserver.conf").write_text(text)
        program = shutil.which("turnserver") or "turnserver"
        words = [*network.within("server"), program, "-c", self.folder / "turnserver.conf"]
        words += [f"--userdb={self.folder}/db", f"--pidfile={self.folder}/pid"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.said: list[str] = []
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        if not self._ready.wait(LIMIT) or self.process.poll() is not None:
            self.__exit__()
            raise AssertionError("coturn did not start:\n" + "".join(self.said[-20:]))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.said.append(line)
            # It opens its database when its listeners are there.
            if "DB connection" in line:
                self._ready.set()
        self._ready.set()
