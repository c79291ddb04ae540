"""The images: their Dockerfiles by a linter and by what they have to say, and what is in them, run as an engine would."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from images import DEPLOY, Container, Dockerfile, assemble, need_containers
from server import ROOT

FILES = [DEPLOY / "Dockerfile", DEPLOY / "Dockerfile.cuda"]
BOTH = pytest.mark.parametrize("path", FILES, ids=lambda it: it.name)


# --- what is written ---


@BOTH
def test_the_linter_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")
    worse = path.read_text().replace("USER 65532:65532", "USER root")
    found = subprocess.run([hadolint, "-"], input=worse, capture_output=True, text=True, timeout=60)
    assert found.returncode != 0 and "DL3002" in found.stdout


@BOTH
def test_nobody_needs_root_or_a_shell_at_run_time(path: Path) -> None:
    file = Dockerfile(path)
    assert file.one("USER") == "65532:65532"
    assert file.words("ENTRYPOINT") == ["/usr/bin/saccade"]
    assert file.words("CMD") == ["serve", "--config", "/etc/saccade/saccade.toml"]
    assert file.words("HEALTHCHECK")[:2] == ["/usr/bin/saccade", "health"]
    limit = int(re.search(r"--timeout=(\d+)s", file.one("HEALTHCHECK"))[1])
    assert int(file.words("HEALTHCHECK")[-1]) < limit, "the check ends by itself, and says why"
    assert not any(it[0] in ("RUN", "ADD") for it in file.last)
    assert {"title", "description", "version", "revision", "licenses"} <= {it.rsplit(".", 1)[1] for it in file.pairs("LABEL")}
    licences = file.pairs("LABEL")["org.opencontainers.image.licenses"]
    assert "GPL" in licences or ("ARG", "LICENCES=GPL-2.0-or-later") in file.last
    # Volumes belong to the user, whatever builder makes the image.
    volumes = json.loads(file.one("VOLUME"))
    owned = [it[1].split() for it in file.last if it[0] == "COPY" and "--chown=65532:65532" in it[1]]
    assert [it[-1].rstrip("/") for it in owned] == volumes
    # Who builds it reads that first.
    head = "".join(line for line in file.text.splitlines(keepends=True)[:12] if line.startswith("#"))
    assert "LICENCE" in head and "x264" in head


@BOTH
def test_dependencies_are_built_before_sources_come(path: Path) -> None:
    file = Dockerfile(path)
    start = next(at for at, it in enumerate(file.all) if it[0] == "FROM" and it[1].endswith(" AS build"))
    steps = [" ".join(it) for it in file.all[start:]]
    cook = next(at for at, it in enumerate(steps) if "cargo chef cook --release --locked" in it)
    sources = next(at for at, it in enumerate(steps) if it == "COPY . .")
    assert cook < sources
    # The version of Rust is the one that the crates ask for.
    wanted = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    assert dict(it[1].split("=", 1) for it in file.all if it[0] == "ARG" and "=" in it[1])["RUST"] == wanted["rust-version"]
    assert ("ARG", f"VERSION={wanted['version']}") in file.last


@BOTH
def test_what_stages_begin_with_may_be_said_from_outside(path: Path) -> None:
    """Builders take no argument for FROM that is not declared before the first stage."""
    file = Dockerfile(path)
    first = next(at for at, it in enumerate(file.all) if it[0] == "FROM")
    declared = {it[1].partition("=")[0] for it in file.all[:first] if it[0] == "ARG"}
    asked = {name for it in file.all if it[0] == "FROM" for name in re.findall(r"\$\{?(\w+)", it[1])}
    assert asked and asked == declared


def test_the_image_for_gpus_is_given_what_decoders_and_models_need() -> None:
    file = Dockerfile(DEPLOY / "Dockerfile.cuda")
    environment = file.pairs("ENV")
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,video,utility"
    assert re.fullmatch(r"nvidia/cuda:\$\{CUDA\}-cudnn-runtime-ubuntu\d\d\.\d\d", file.stages[-1])
    # The major version that the pinned ONNX Runtime is for.
    assert ("ARG", "CUDA=13.0.1") in file.all
    assert ("ENV", "XDG_CACHE_HOME=/opt SACCADE_RUNTIME=cuda") in [(it[0], " ".join(it[1].split())) for it in file.all]


def context() -> set[str]:
    """The tracked files that .dockerignore lets through (the last line that matches decides)."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    def pattern(rule: str) -> re.Pattern[str]:
        text = re.escape(rule).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        return re.compile(f"{text}(?:/.*)?")

    compiled = [(not it.startswith("!"), pattern(it.lstrip("!"))) for it in rules]
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)

    def left_out(name: str) -> bool:
        decided = False
        for out, rule in compiled:
            if rule.fullmatch(name):
                decided = out
        return decided

    return {it for it in listed.stdout.splitlines() if not left_out(it)}


def test_what_is_built_of_is_all_that_the_build_reads_and_little_more(tmp_path: Path) -> None:
    files = context()
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    # Every manifest, and every target that one names.
    words = ["cargo", "metadata", "--no-deps", "--offline", "--locked", "--format-version=1"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    packages = json.loads(done.stdout)["packages"]
    for target in (it for package in packages for it in package["targets"]):
        assert Path(target["src_path"]).is_file(), target["src_path"]
    # Every file that the program has in it.
    folders = [Path(it["manifest_path"]).parent / "src" for it in packages]
    named = 0
    for source in (it for folder in folders for it in folder.rglob("*.rs")):
        body = source.read_text().split("#[cfg(test)]")[0]
        if source.name == "tests.rs" or "tests" in source.parts:
            continue
        for name in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', body):
            assert (source.parent / name).resolve().is_file(), f"{source} includes {name}"
            named += 1
        for name in re.findall(r'#\[folder = "([^"]+)"\]', body):
            assert any((tmp_path / name).iterdir())
            named += 1
    assert named >= 10
    size = sum((tmp_path / it).stat().st_size for it in files)
    assert size < 60e6, f"{size / 1e6:.0f} MB"


def test_scripts_of_the_image_are_sound() -> None:
    done = subprocess.run(["bash", "-n", DEPLOY / "image" / "ffmpeg-lgpl.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- what is in it ---


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("image") / "root"
    done = assemble(root)
    assert done.returncode == 0, done.stderr
    # A container's user has to get through the folders above, as it gets through an engine's.
    for folder in (root.parent, root.parent.parent):
        folder.chmod(0o755)
    yield root
    shutil.rmtree(root)


def test_there_is_no_shell_and_nothing_that_installs(image: Path) -> None:
    programs = [it for it in image.rglob("*") if it.is_file() and not it.is_symlink() and os.access(it, os.X_OK) and ".so" not in it.name]
    assert [it.relative_to(image).as_posix() for it in programs] == ["usr/lib/saccade/saccade"]
    assert (image / "usr/bin/saccade").resolve() == programs[0]
    assert not [it for it in image.rglob("*") if it.is_file() and it.stat().st_mode & 0o6022], "set-id or writable for others"


def test_the_list_of_parts_is_whole(image: Path) -> None:
    document = json.loads((image / "usr/share/saccade/sbom.cdx.json").read_text())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.5")
    parts = document["components"]
    assert len({it["bom-ref"] for it in parts}) == len(parts)
    locked = {(it["name"], it["version"]) for it in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    assert locked == {(it["name"], it["version"]) for it in parts if it["purl"].startswith("pkg:cargo/")}
    # Each library but those of ONNX Runtime's folder is of a package in the list, with its licence beside it.
    packages = {it["name"] for it in parts if it["purl"].startswith("pkg:deb/")}
    assert {"libavcodec59", "libx264-164", "libvpx7", "libc6", "ca-certificates"} <= packages
    for name in packages:
        assert (image / "usr/share/doc" / name / "copyright").is_file() or name == "ca-certificates", name
    assert [it["name"] for it in parts if it["purl"].startswith("pkg:pypi/")] == ["onnxruntime"]
    assert "GNU General" in (image / "usr/share/saccade/GPL.txt").read_text()


def test_what_cannot_be_assembled_says_what_to_do(image: Path, tmp_path: Path) -> None:
    done = assemble(image)
    assert done.returncode == 69 and "is not empty" in done.stderr
    (tmp_path / "runtime").mkdir()
    done = assemble(tmp_path / "out", "--runtime", tmp_path / "runtime")
    assert done.returncode == 69 and "make setup" in done.stderr


def test_a_container_of_it_starts_answers_and_ends(image: Path, tmp_path: Path) -> None:
    need_containers()
    etc, secrets = tmp_path / "etc", tmp_path / "secrets"
    for folder in (tmp_path, etc, secrets):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
    shutil.copyfile(DEPLOY / "profiles" / "production.toml", etc / "saccade.toml")
    for name in ("token_secret", "turn_secret"):
        (secrets / name).write_text("5f" * 32)
    file = Dockerfile(DEPLOY / "Dockerfile")
    # Empty folders, which volumes are mounted on.
    for volume in ("var/lib/saccade", "var/cache/saccade"):
        (image / volume).mkdir(parents=True, exist_ok=True)
    before = sorted(it.relative_to(image) for it in image.rglob("*"))
    with Container(file, image, etc, secrets) as container:
        container.ready()
        health = container.run(*file.words("HEALTHCHECK"))
        assert (health.returncode, health.stdout, health.stderr) == (0, "ready\n", "")

        status = Path(f"/proc/{container.pid()}/status").read_text()
        assert re.search(r"(?m)^Uid:\s+65532\s+65532\s+65532\s+65532$", status)
        assert re.search(r"(?m)^CapEff:\s+0+$", status) and re.search(r"(?m)^NoNewPrivs:\s+1$", status)

        doctor = container.run("/usr/bin/saccade", "doctor", "--json", "--config", "/etc/saccade/saccade.toml")
        checks = {it["name"]: it for it in json.loads(doctor.stdout)["checks"]}
        for name, found in (("encoders", "libx264, libvpx"), ("decoders", "h264, vp8, vp9"), ("providers", "cpu, openvino")):
            assert (checks[name]["status"], checks[name]["found"]) == ("ok", found)
        assert checks["onnxruntime"]["found"].startswith("/usr/lib/saccade/libonnxruntime.so.")

        token = container.run("/usr/bin/saccade", "token", "--config", "/etc/saccade/saccade.toml", "--sub", "test", "--can-publish")
        assert token.returncode == 0, token.stderr
        (tmp_path / "one.jpg").write_bytes(cv2.imencode(".jpg", np.full((240, 320, 3), 128, dtype=np.uint8))[1].tobytes())
        words = ["--header", f"Authorization: Bearer {token.stdout.strip()}", "--header", "Content-Type: image/jpeg"]
        words += ["--header", "Host: vision.example", "--data-binary", f"@{tmp_path / 'one.jpg'}"]
        answer = container.curl(*words, "http://127.0.0.1:8080/v1/detect")
        assert json.loads(answer.stdout)["detections"] == [], answer.stdout + answer.stderr
        # History has its place on the volume.
        volume = Path(f"/proc/{container.pid()}/root/var/lib/saccade")
        assert (volume / "history.db").is_file()

        assert container.terminate() == 0, container.said()
        said = container.said()
        assert "panicked" not in said and '"level":"ERROR"' not in said, said
    assert sorted(it.relative_to(image) for it in image.rglob("*")) == before


def test_a_server_that_is_not_there_is_not_healthy(image: Path, tmp_path: Path) -> None:
    need_containers()
    file = Dockerfile(DEPLOY / "Dockerfile")
    tmp_path.chmod(0o755)
    with Container(file, image, tmp_path, tmp_path) as container:
        # Without a configuration there is none.
        assert container.process.wait(60) == 64
        assert "saccade.toml" in container.said()
