#!/usr/bin/env python3
"""Puts the server and nothing that it does not need into a folder, which an image takes as its root.

    assemble.py --binary target/release/saccade --runtime ONNXRUNTIME_FOLDER --models models --lock Cargo.lock --out /image

Takes along: the program; each shared library that it and ONNX Runtime are linked with, from this machine's packages; the
certificates of public authorities; a user `saccade` (65532); the licences of all that; and `usr/share/saccade/sbom.cdx.json`
(CycloneDX 1.5), which names every package of Debian's, every crate and ONNX Runtime with version and licence.

Runs where the program was built, on Debian or Ubuntu: libraries come from the same packages that it was linked with.
`--base-has-libc` leaves the C and C++ libraries out, for images whose base brings newer ones of its own.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import quote

USER, UID = "saccade", 65532
# What models need of the folder of ONNX Runtime with OpenVINO: wheels keep no links, so that each library is there
# under three names, and there are plugins for devices that the server does not use.
RUNTIME = [
    r"libonnxruntime\.so\.[0-9.]+",
    r"libonnxruntime_providers_(shared|openvino|cuda|tensorrt)\.so",
    r"libopenvino\.so\.\d{4}",
    r"libopenvino_onnx_frontend\.so\.\d{4}",
    r"libopenvino_intel_cpu_plugin\.so",
    r"libtbb\.so\.\d+",
    r"libtbbmalloc\.so\.\d+",
    r"LICENSE|ThirdPartyNotices\.txt",
]
# The C and C++ libraries, which belong together with the loader.
LIBC = re.compile(r"(ld-linux-x86-64|libc|libm|libdl|librt|libpthread|libresolv|libutil|libgcc_s|libstdc\+\+|libanl|libnss_\w+)\.so\b.*")
# Comes from the driver of whoever has a GPU, or from the CUDA image.
FOREIGN = re.compile(r"lib(cuda|cudart|cublas\w*|cudnn\w*|cufft|curand|cusparse|nv\w+)\.so\b.*")


def run(*words: object) -> str:
    return subprocess.run([str(it) for it in words], check=True, capture_output=True, text=True, timeout=120).stdout


class Mistake(Exception):
    """What cannot be assembled, and what to do."""


def linked(file: Path, folder: Path | None) -> set[Path]:
    """The libraries of this machine that a file needs; those of `folder` lie beside it anyway."""
    paths = [str(folder)] if folder else []
    paths += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(paths)}
    done = subprocess.run(["ldd", file], capture_output=True, text=True, timeout=60, env=environment)
    found = set()
    for line in done.stdout.splitlines():
        name, _, rest = line.strip().partition(" => ")
        if rest.startswith("not found"):
            if not FOREIGN.fullmatch(name):
                raise Mistake(f"{file} needs {name}, which is not installed: install its package where this runs")
            continue
        path = Path((rest or name).split(" (")[0])
        if path.is_absolute() and not (folder and path.parent.resolve() == folder.resolve()):
            found.add(path)
    return found


class Packages:
    """Of which package a file is, as dpkg knows it; an FFmpeg of our own is in a folder of its own."""

    def __init__(self, ffmpeg: Path | None) -> None:
        self.found: dict[str, dict[str, str]] = {}
        self.ffmpeg = ffmpeg
        self.owners: dict[str, str] = {}

    def look(self, files: set[Path]) -> None:
        """Asks of all files at once, since each question takes half a second."""
        names = sorted({name for it in files for name in self.names(it)})
        done = subprocess.run(["dpkg-query", "-S", *names], capture_output=True, text=True, timeout=120)
        for line in done.stdout.splitlines():
            owner, _, name = line.rpartition(": ")
            self.owners[name] = owner.split(",")[0].strip()

    @staticmethod
    def names(file: Path) -> list[str]:
        # Since /lib is a link to /usr/lib, packages know a file by either name.
        real = str(file.resolve())
        return [str(file), real, "/usr" + str(file), real.removeprefix("/usr")]

    def add(self, file: Path) -> str:
        if self.ffmpeg and file.is_relative_to(self.ffmpeg):
            version = (self.ffmpeg / "VERSION").read_text().strip()
            self.found["ffmpeg-lgpl"] = {"name": "ffmpeg", "version": version, "architecture": "amd64", "source": "ffmpeg"}
            return "ffmpeg-lgpl"
        owner = next((self.owners[name] for name in self.names(file) if name in self.owners), None)
        if owner is None:
            raise Mistake(f"{file} is of no package: libraries that were put there by hand have no licence and no version")
        if owner not in self.found:
            shown = "${Package}\t${Version}\t${Architecture}\t${source:Package}"
            package, version, architecture, source = run("dpkg-query", "-W", f"-f={shown}", owner).split("\t")
            self.found[owner] = {"name": package, "version": version, "architecture": architecture, "source": source}
        return self.found[owner]["name"]


def copy(source: Path, target: Path, mode: int | None = None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode if mode is not None else source.stat().st_mode & 0o755 | 0o444)


def crates(lock: Path) -> list[dict[str, object]]:
    """The crates that the lock file names, with the checksums of their sources. Those of tests are among them."""
    found = []
    for it in tomllib.loads(lock.read_text())["package"]:
        component = {
            "type": "library",
            "bom-ref": f"pkg:cargo/{it['name']}@{it['version']}",
            "name": it["name"],
            "version": it["version"],
            "purl": f"pkg:cargo/{it['name']}@{it['version']}",
        }
        if "checksum" in it:
            component["hashes"] = [{"alg": "SHA-256", "content": it["checksum"]}]
        found.append(component)
    return found


def sbom(version: str, packages: Packages, lock: Path, runtime: Path, codename: str) -> dict[str, object]:
    components = crates(lock)
    for it in packages.found.values():
        # https://github.com/package-url/purl-spec, type deb
        purl = f"pkg:deb/debian/{it['name']}@{quote(it['version'], safe='')}?arch={it['architecture']}&distro={codename}"
        components.append(
            {
                "type": "library",
                "bom-ref": purl,
                "name": it["name"],
                "version": it["version"],
                "purl": purl,
                "properties": [{"name": "debian:source", "value": it["source"]}],
            }
        )
    library = next(iter(sorted(runtime.glob("libonnxruntime.so.*"))))
    number = library.name.removeprefix("libonnxruntime.so.")
    components.append(
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{runtime.name.rsplit('-', 1)[0]}@{number}",
            "name": "onnxruntime",
            "version": number,
            "purl": f"pkg:pypi/{runtime.name.rsplit('-', 1)[0]}@{number}",
            "licenses": [{"license": {"id": "MIT"}}],
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(library.read_bytes()).hexdigest()}],
        }
    )
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "saccade", "name": "saccade", "version": version}},
        "components": components,
    }


def assemble(args: argparse.Namespace) -> None:
    out: Path = args.out
    if out.exists() and any(out.iterdir()):
        raise Mistake(f"{out} is not empty: give a folder that is not there yet")
    packages = Packages(args.ffmpeg)
    # Beside ONNX Runtime, where it looks for that.
    home = out / "usr/lib/saccade"
    copy(args.binary, home / "saccade", 0o755)
    # Names of functions stay, for what a panic says; where lines are takes four times the space.
    run("strip", "--strip-debug", home / "saccade")
    (out / "usr/bin").mkdir(parents=True, exist_ok=True)
    (out / "usr/bin/saccade").symlink_to("../lib/saccade/saccade")
    names = re.compile("|".join(f"(?:{it})" for it in RUNTIME))
    runtime = [it for it in sorted(args.runtime.iterdir()) if names.fullmatch(it.name)]
    if not any(it.name.startswith("libonnxruntime.so.") for it in runtime):
        raise Mistake(f"there is no ONNX Runtime in {args.runtime}: `make setup` fetches it")
    for file in runtime:
        copy(file, home / file.name)

    needed = linked(args.binary, None)
    for file in runtime:
        if ".so" in file.name:
            needed |= linked(file, args.runtime)
    certificates, made_by = Path("/etc/ssl/certs/ca-certificates.crt"), Path("/usr/sbin/update-ca-certificates")
    if not certificates.exists():
        raise Mistake("there are no certificates of authorities: install ca-certificates where this runs")
    copy(certificates, out / "etc/ssl/certs/ca-certificates.crt", 0o644)
    packages.look(needed | {made_by})
    packages.add(made_by)
    for file in sorted(needed):
        if args.base_has_libc and LIBC.fullmatch(file.name):
            continue
        name = packages.add(file)
        # Under the name that it is asked for by; the loader has its own fixed place.
        place = file if file.name.startswith("ld-linux") else Path("usr/lib/x86_64-linux-gnu") / file.name
        if args.base_has_libc:
            place = Path("usr/lib/saccade") / file.name
        copy(file.resolve(), out / str(place).lstrip("/"))
        licence = Path("/usr/share/doc") / name / "copyright"
        if args.ffmpeg and name == "ffmpeg-lgpl":
            copy(args.ffmpeg / "COPYING.LGPLv2.1", out / "usr/share/doc/ffmpeg-lgpl/COPYING.LGPLv2.1", 0o644)
        if licence.exists():
            copy(licence.resolve(), out / str(licence).lstrip("/"), 0o644)

    if not args.base_has_libc:
        (out / "etc/passwd").write_text(
            f"root:x:0:0:root:/nonexistent:/none\n{USER}:x:{UID}:{UID}:Saccade:/var/lib/saccade:/none\n"
        )
        (out / "etc/group").write_text(f"root:x:0:\n{USER}:x:{UID}:\n")
        # Names are looked up in files and by DNS, both of which the C library does by itself.
        (out / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
        shutil.copyfile("/etc/os-release", out / "etc/os-release")

    share = out / "usr/share/saccade"
    shutil.copytree(args.models, share / "models", ignore=shutil.ignore_patterns("train", "scene-blobs", "__pycache__"))
    for licence in ("LICENSE-APACHE", "LICENSE-MIT"):
        copy(args.lock.parent / licence, share / licence, 0o644)
    (share / "GPL.txt").write_text(
        "This image contains FFmpeg as Debian builds it, with x264, and is therefore as a whole under the GNU General\n"
        "Public License, version 2 or later. Sources: `apt-get source` of the packages that sbom.cdx.json names, in the\n"
        "versions it names. Saccade's own code is under MIT or Apache-2.0.\n"
        if any("x264" in it for it in packages.found)
        else "This image contains no x264, and no part of FFmpeg that is under the GPL.\n"
    )
    (share / "volume").mkdir()
    (share / "volume" / "README").write_text("What Saccade keeps between starts: deploy/README.md says what of it to back up.\n")
    # What is mounted on.
    for folder in ("dev", "etc/saccade", "proc", "run/secrets", "sys", "tmp"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    (out / "tmp").chmod(0o1777)

    release = dict(re.findall(r'(?m)^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text()))
    version = tomllib.loads((args.lock.parent / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    codename = f"{release['ID']}-{release['VERSION_ID']}"
    document = sbom(version, packages, args.lock, args.runtime, codename)
    (share / "sbom.cdx.json").write_text(json.dumps(document, indent=1) + "\n")
    size = sum(it.stat().st_size for it in out.rglob("*") if it.is_file() and not it.is_symlink())
    print(f"{size / 1e6:.0f} MB, {len(packages.found)} packages, {len(document['components'])} components")


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--binary", type=Path, required=True, help="the program")
    words.add_argument("--runtime", type=Path, required=True, help="folder of ONNX Runtime's libraries")
    words.add_argument("--models", type=Path, required=True, help="folder of models")
    words.add_argument("--lock", type=Path, required=True, help="Cargo.lock of what was built")
    words.add_argument("--out", type=Path, required=True, help="folder to make")
    words.add_argument("--ffmpeg", type=Path, help="folder of an FFmpeg of our own, in LD_LIBRARY_PATH, too; may be empty")
    words.add_argument("--base-has-libc", action="store_true", help="leave out the C and C++ libraries")
    try:
        assemble(words.parse_args())
    except Mistake as mistake:
        print(f"assemble: {mistake}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
