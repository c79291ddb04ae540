"""What the pages of deploy/ tell operators to type, to set and to read is there."""

import os
import re
import shutil
import stat
import subprocess
from functools import cache
from pathlib import Path

import helm_python
import pytest
import yaml
from chart import CHART
from server import BINARY, ROOT, command

DEPLOY = ROOT / "deploy"
PAGES = sorted([*DEPLOY.glob("*.md"), *DEPLOY.glob("*/*.md")])
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda it: str(it.relative_to(DEPLOY)))


def blocks(page: Path, language: str = "sh") -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", page.read_text())


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```$", "", page.read_text())


@cache
def anchors(page: Path) -> set[str]:
    """What may stand behind a page's #, as GitHub makes it of headlines."""
    heads = [re.sub(r"[`*\[\]]|\]\([^)]*\)", "", it) for it in re.findall(r"(?m)^#+ (.*)$", prose(page))]
    return {re.sub(r"[^\w\- ]", "", it.lower()).replace(" ", "-") for it in heads}


@EACH
def test_links_lead_somewhere(page: Path) -> None:
    astray = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            astray.append(target)
    assert not astray


@EACH
def test_a_shell_can_read_what_is_to_be_typed(page: Path) -> None:
    for block in blocks(page):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=10)
        assert done.returncode == 0, done.stderr


@cache
def helped(*words: str) -> str:
    done = command(*words, "--help")
    assert done.returncode == 0, f"saccade {' '.join(words)}: {done.stderr}"
    return done.stdout


@EACH
def test_commands_and_flags_of_the_server_are_there(page: Path) -> None:
    commands = set(re.findall(r"(?m)^  ([a-z]+) ", helped().split("Commands:")[1].split("Options:")[0]))
    typed = [*re.findall(r"`([^`\n]+)`", prose(page)), *(line for block in blocks(page) for line in block.splitlines())]
    wrong = []
    for line in typed:
        for name, rest in re.findall(r"(?:^|[\s;&|(])saccade ([a-z]+)\b([^#;&|]*)", line):
            if name in commands:
                # One that has commands of its own, such as `models check`.
                inner = re.findall(r"^ ([a-z]+)\b", rest) if "Commands:" in helped(name) else []
                text = helped(name, *inner)
                wrong += [f"saccade {name} {it}" for it in rest.split() if it.startswith("--") and it.split("=")[0] not in text]
            elif line.startswith("saccade "):
                wrong.append(f"saccade {name}")
    assert not wrong


@cache
def keys_of_the_chart() -> set[str]:
    def paths(values: dict, above: str = "") -> list[str]:
        inner = [paths(one, f"{above}{key}.") for key, one in values.items() if isinstance(one, dict)]
        return [f"{above}{key}" for key in values] + [it for one in inner for it in one]

    return set(paths(yaml.safe_load((CHART / "values.yaml").read_text())))


# Parts of traces, which have names like settings.
SPANS = {"session.setup", "session.admit"}


@EACH
def test_settings_that_are_named_are_there(page: Path) -> None:
    example = (ROOT / "saccade.example.toml").read_text()
    found = re.finditer(r"(?ms)^(?:# )?\[\[?(\w+)(?:\.NAME)?\]\]?\n(.*?)(?=^(?:# )?\[\[?\w+(?:\.NAME)?\]\]?$|\Z)", example)
    sections: dict[str, str] = {}
    for it in found:
        sections[it[1]] = sections.get(it[1], "") + it[2]
    wrong = []
    for text in re.findall(r"`([^`\n]+)`", prose(page)):
        for section, key, more in re.findall(r"^(?:config\.)?([a-z]+)\.([a-z]\w*)(\*?)(?= = |$|,)", text):
            name, rest = f"{section}.{key}", r"\w*" if more else ""
            there = re.search(rf"(?m)^(?:# )?{key}{rest} = ", sections.get(section, "")) or name in keys_of_the_chart() | SPANS
            if not there and section in sections:
                wrong.append(name)
    assert not wrong


# --- commands that are run ---


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine's folders, with a repository in which the program is built, and programs that only say that they were called."""
    for name in ("usr/bin", "etc", "bin", "repository/target/release", "home/.cache/saccade"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "repository" / "deploy").mkdir()
    for name in ("profiles", "sysctl", "systemd"):
        shutil.copytree(DEPLOY / name, tmp_path / "repository" / "deploy" / name)
    shutil.copy(BINARY, tmp_path / "repository" / "target" / "release" / "saccade")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "saccade"
    [runtime] = sorted(cache.glob("onnxruntime-openvino-*"))[-1:]
    (tmp_path / "home/.cache/saccade" / runtime.name).symlink_to(runtime)
    for name in ("systemctl", "sysctl", "docker"):
        file = tmp_path / "bin" / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/called\n')
        file.chmod(0o755)
    return tmp_path


def typed(machine: Path, block: str) -> None:
    """Runs a block in the repository, with its machine in a folder."""
    moved = re.sub(r"(?<=[\s>])/(usr|etc)/", rf"{machine}/\1/", block)
    environment = {"PATH": f"{machine}/bin:{os.environ['PATH']}", "HOME": str(machine / "home")}
    words = ["bash", "-euo", "pipefail", "-c", moved]
    done = subprocess.run(words, cwd=machine / "repository", env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_guide_s_commands_install_a_service_that_finds_all_it_needs(machine: Path) -> None:
    secrets, service, *_ = blocks(DEPLOY / "README.md")
    typed(machine, secrets)
    made = machine / "repository" / "deploy" / "secrets"
    assert {it.name for it in made.iterdir()} == {"token_secret", "turn_secret", "grafana_password"}
    assert all(stat.S_IMODE(it.stat().st_mode) == 0o600 and len(it.read_text().strip()) >= 32 for it in made.iterdir())
    # Again, as when something went wrong on the way.
    for _ in range(2):
        typed(machine, service)
    assert "systemctl daemon-reload" in (machine / "called").read_text()
    unit = (machine / "etc/systemd/system/saccade.service").read_text()
    for name, source in re.findall(r"(?m)^LoadCredential=(\w+):/(.*)$", unit):
        file = machine / source
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, name
    # The configuration names the files that systemd makes of them; here they are where they come from.
    config = machine / "etc/saccade/saccade.toml"
    text = config.read_text()
    named = set(re.findall(r"/run/credentials/saccade\.service/(\w+)", text))
    assert named == set(re.findall(r"(?m)^LoadCredential=(\w+):", unit)) and "/run/secrets/" not in text
    config.write_text(text.replace("/run/credentials/saccade.service", str(machine / "etc/saccade/secrets")))
    program = machine / "usr/bin/saccade"
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "XDG_CACHE_HOME": str(machine / "cache")}
    check = [program, "serve", "--check", "--config", config]
    done = subprocess.run(check, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    # ONNX Runtime is found beside the program, which nobody's cache has to be there for.
    report = subprocess.run([program, "doctor"], cwd=machine, env=environment, capture_output=True, text=True, timeout=120).stdout
    runtime = next(line for line in report.splitlines() if "onnxruntime" in line)
    assert str(machine / "usr/lib/saccade") in runtime, report


def test_the_chart_is_installed_as_the_guide_says() -> None:
    text = blocks(DEPLOY / "KUBERNETES.md")[0].replace("\\\n", " ")
    [line] = [it for it in text.splitlines() if it.startswith("helm install ")]
    values: dict = {}
    for file in re.findall(r"--values (\S+)", line):
        values |= yaml.safe_load((ROOT / file).read_text())
    for path, value in re.findall(r"--set ([\w.]+)=(\S+)", line):
        *above, last = path.split(".")
        at = values
        for key in above:
            at = at.setdefault(key, {})
        at[last] = value
    namespace = re.search(r"--namespace (\S+)", line)[1]
    with helm_python.Chart.load(ROOT / line.split()[3]) as chart:
        rendered = "\n".join(chart.render(values, name=line.split()[2], namespace=namespace).values())
    # Each Secret that pods name is one that was made before, with the key that they ask for.
    made = dict(re.findall(r"create secret generic (\S+) --from-(?:file|literal)=(\w+)=", text))
    asked = re.findall(r"(?:secretKeyRef|secret):\s+name: (\S+)\s+(?:items:\s+- )?key: (\S+)", rendered)
    assert dict(asked) == made and len(made) == 3


def test_kubectl_makes_the_secrets_of_the_guide(tmp_path: Path) -> None:
    for line in blocks(DEPLOY / "KUBERNETES.md")[0].splitlines():
        if line.startswith("openssl"):
            subprocess.run(["bash", "-euc", line], cwd=tmp_path, check=True, timeout=30)
        elif "create secret" in line or "create namespace" in line:
            words = [*line.split(), "--dry-run=client", "--output", "yaml"]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert yaml.safe_load(done.stdout)["kind"] in ("Secret", "Namespace")
