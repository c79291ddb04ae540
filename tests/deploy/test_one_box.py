"""What deploy/ has for one box: the profiles, the service of systemd, the settings of the kernel, and compose's file."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from server import BINARY, ROOT, command

DEPLOY = ROOT / "deploy"
PROFILES = sorted((DEPLOY / "profiles").glob("*.toml"))
# systemd's own measure of how much a service may do, in tenths: 18 is what this one has.
EXPOSURE = 20
# Names of the modules of this machine's users, and their homes, which have nothing to say here.
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("SACCADE_")}


# --- profiles ---


def with_secrets(profile: Path, folder: Path) -> Path:
    """The profile with its secrets in files of this folder, where they are those that an operator would make."""
    text = profile.read_text()
    for name in set(re.findall(r'"/run/secrets/(\w+)"', text)):
        (folder / name).write_text("5f" * 32 + "\n")
    changed = folder / profile.name
    changed.write_text(text.replace("/run/secrets/", f"{folder}/"))
    return changed


def check(file: Path) -> subprocess.CompletedProcess:
    words = [BINARY, "serve", "--check", "--config", file]
    return subprocess.run(words, cwd=file.parent, env=CLEAN, capture_output=True, text=True, timeout=30)


def test_there_are_three_profiles() -> None:
    assert [it.stem for it in PROFILES] == ["development", "production", "staging"]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda it: it.stem)
def test_profiles_are_accepted_with_their_secrets_as_files(profile: Path, tmp_path: Path) -> None:
    done = check(with_secrets(profile, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["production", "staging"])
def test_profiles_without_their_secrets_are_refused_and_told_which(name: str, tmp_path: Path) -> None:
    profile = with_secrets(DEPLOY / "profiles" / f"{name}.toml", tmp_path)
    (tmp_path / "token_secret").unlink()
    done = check(profile)
    assert done.returncode == 64
    assert "auth.secret_file" in done.stderr and "token_secret" in done.stderr


@pytest.mark.parametrize("profile", PROFILES, ids=lambda it: it.stem)
def test_no_profile_has_a_secret_or_opens_the_operators_listener(profile: Path) -> None:
    values = tomllib.loads(profile.read_text())
    assert values["ops"]["listen"].startswith("127.0.0.1:")
    assert values["http"]["listen"].startswith("127.0.0.1:")
    assert "secret" not in values.get("auth", {})
    assert all("secret" not in it and "credential" not in it for it in values.get("ice_servers", []))
    if profile.stem != "development":
        assert values["auth"]["secret_file"] and values["http"]["trusted_proxies"] == ["127.0.0.1"]


# --- systemd ---


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The service with the drop-in beside it, for a program that is there."""
    text = (DEPLOY / "systemd" / "saccade.service").read_text()
    assert text.count("/usr/bin/saccade ") == 1
    file = tmp_path / "saccade.service"
    file.write_text(text.replace("/usr/bin/saccade ", f"{BINARY} "))
    return file


def analyze(*words: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(["systemd-analyze", "--no-pager", *words], capture_output=True, text=True, timeout=60)


def test_systemd_takes_every_line_of_the_service(unit: Path) -> None:
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    # It would say so.
    unit.write_text(unit.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in analyze("verify", unit).stderr


def test_systemd_takes_the_drop_in_for_gpus(unit: Path) -> None:
    shutil.copytree(DEPLOY / "systemd" / "saccade.service.d", unit.parent / "saccade.service.d")
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_service_may_do_little(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout[-400:]
    assert "Overall exposure level" in done.stdout
    # Without its bounds the same service is above the threshold.
    bare = re.sub(r"(?m)^(Protect|Private|Restrict|SystemCall|Capability|NoNew|Lock|DevicePolicy|DynamicUser|UMask)\w*=.*$", "", unit.read_text())
    unit.write_text(bare)
    assert analyze("security", "--offline=true", f"--threshold={EXPOSURE}", unit).returncode != 0


def test_the_service_gives_sessions_the_time_that_they_have() -> None:
    text = (DEPLOY / "systemd" / "saccade.service").read_text()
    stop = int(re.search(r"(?m)^TimeoutStopSec=(\d+)$", text)[1])
    for profile in PROFILES:
        assert tomllib.loads(profile.read_text())["shutdown"]["grace_ms"] < stop * 1000


def test_the_service_is_started_again_but_for_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    lines = (DEPLOY / "systemd" / "saccade.service").read_text().splitlines()
    assert {"Restart=on-failure", "StartLimitIntervalSec=0", "RestartPreventExitStatus=64"} <= set(lines)
    # What comes before the main process is asked for its status by nobody.
    assert not [it for it in lines if it.startswith(("ExecStartPre", "ExecCondition"))]
    [start] = [it.split()[1:] for it in lines if it.startswith("ExecStart=")]
    (tmp_path / "saccade.toml").write_text("[session]\nbudget_mz = 50\n")
    words = [BINARY, *(str(tmp_path / "saccade.toml") if it.endswith(".toml") else it for it in start)]
    done = subprocess.run(words, cwd=tmp_path, env=CLEAN, capture_output=True, text=True, timeout=30)
    assert done.returncode == 64 and "session.budget_mz" in done.stderr


# --- the kernel ---


def test_the_settings_of_the_kernel_are_those_that_doctor_asks_for() -> None:
    text = (DEPLOY / "sysctl" / "90-saccade.conf").read_text()
    settings = dict(re.findall(r"(?m)^([\w.]+) = (\d+)$", text))
    assert set(settings) == {"net.core.rmem_max", "net.core.wmem_max"}
    report = command("doctor", "--json", "--set", "models.calibration=off", "--set", "media.port=0", limit=120).stdout
    found = next(it for it in json.loads(report)["checks"] if it["name"] == "socket buffers")
    wanted = int(re.search(r"of (\d+)$", found["found"])[1]) * 1024
    assert [int(it) for it in settings.values()] == [wanted, wanted]
    if found["status"] == "warn":
        assert all(f"{key}={value}" in found["advice"] for key, value in settings.items())


# --- compose ---


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What compose makes of the file, with all of its profiles."""
    text = (DEPLOY / "compose.yaml").read_text()
    # The specification has it, and Debian's compose does not know it yet.
    text, count = re.subn(r"(?m)^name: .*\n", "", text)
    assert count == 1
    file = tmp_path_factory.mktemp("compose") / "compose.yaml"
    file.write_text(text)
    words = ["docker-compose", "--project-directory", DEPLOY, "--file", file, "--profile", "redis", "--profile", "postgres"]
    done = subprocess.run([*words, "config"], env=CLEAN, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    # What it prints is YAML that is its own reader's; that is of the system's Python.
    reading = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"
    read = subprocess.run(["/usr/bin/python3", "-c", reading], input=done.stdout, capture_output=True, text=True, check=True)
    return json.loads(read.stdout)


ALWAYS = {"saccade", "nginx", "coturn", "prometheus", "grafana"}


def test_compose_starts_what_it_says_and_the_stores_on_request(composed: dict) -> None:
    services = composed["services"]
    assert set(services) == ALWAYS | {"redis", "postgres"}
    assert {name for name, it in services.items() if not it.get("profiles")} == ALWAYS
    assert (services["redis"]["profiles"], services["postgres"]["profiles"]) == (["redis"], ["postgres"])


def test_every_container_is_bounded_and_writes_to_its_volumes_alone(composed: dict) -> None:
    for name, it in composed["services"].items():
        assert it["read_only"] is True, name
        assert it["cap_drop"] == ["ALL"] and "cap_add" not in it and "privileged" not in it, name
        assert it["security_opt"] == ["no-new-privileges:true"], name
        user = it["user"].split(":")[0]
        assert user.isdigit() and int(user) > 0, name
        assert it["mem_limit"] and float(it["cpus"]) > 0 and int(it["pids_limit"]) > 0, name
        assert it["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert it["logging"]["options"]["max-size"], name
        # A name that is moved on by whoever owns it is no version.
        assert re.search(r":[\w.-]*\d[\w.-]*$", it["image"]), it["image"]


def test_files_that_containers_read_are_there_and_secrets_are_files_that_are_not_in_the_repository(composed: dict) -> None:
    named = 0
    for name, it in composed["services"].items():
        for volume in it.get("volumes", []):
            source, _, mode = volume.split(":")[0], *volume.rsplit(":", 1)
            if source.startswith("/"):
                assert Path(source).is_file() or any(Path(source).rglob("*.yml")) or any(Path(source).glob("*.json")), source
                assert mode == "ro", volume
                named += 1
        for key, value in (it.get("environment") or {}).items():
            assert not re.search("PASSWORD|SECRET", key) or str(value).startswith("/run/secrets/"), (name, key)
    assert named >= 5
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    for it in composed["secrets"].values():
        assert Path(it["file"]).parent == DEPLOY / "secrets"
    assert "/deploy/secrets/" in ignored


def test_only_the_site_media_and_turn_are_reached_from_outside(composed: dict) -> None:
    def published(name: str) -> set[str]:
        found = set()
        for it in composed["services"][name].get("ports", []):
            if isinstance(it, dict):
                it = f"{it.get('host_ip', '')}:{it['published']}:{it['target']}/{it.get('protocol', 'tcp')}".lstrip(":")
            found.add(it if "/" in it else f"{it}/tcp")
        return found

    assert published("saccade") == {"8189:8189/udp", "8189:8189/tcp"}
    assert published("nginx") == {"80:80/tcp", "443:443/tcp"}
    assert published("prometheus") == {"127.0.0.1:9090:9090/tcp"}
    assert published("grafana") == {"127.0.0.1:3000:3000/tcp"}
    assert not published("redis") and not published("postgres")
    assert {name for name, it in composed["services"].items() if it.get("network_mode") == "host"} == {"coturn"}


def test_the_servers_configuration_in_compose_is_accepted(composed: dict, tmp_path: Path) -> None:
    server = composed["services"]["saccade"]
    mounted = [it for it in server["volumes"] if it.split(":")[1] == "/etc/saccade/saccade.toml"]
    assert server["command"] == ["serve", "--config", "/etc/saccade/saccade.toml"] and len(mounted) == 1
    profile = with_secrets(Path(mounted[0].split(":")[0]), tmp_path)
    # Each secret that it reads is one that the container has.
    given = {it if isinstance(it, str) else it["source"] for it in server["secrets"]}
    assert set(re.findall(r'"/run/secrets/(\w+)"', Path(mounted[0].split(":")[0]).read_text())) <= given
    environment = CLEAN | {key: str(value) for key, value in server["environment"].items()}
    words = [BINARY, "serve", "--check", "--config", profile]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    # The one address that says who asks is that of nginx.
    address = composed["services"]["nginx"]["networks"]["front"]["ipv4_address"]
    assert server["environment"]["SACCADE_HTTP__TRUSTED_PROXIES"] == address
    grace = tomllib.loads(profile.read_text())["shutdown"]["grace_ms"]
    assert int(server["stop_grace_period"].rstrip("s")) * 1000 > grace


def test_logs_of_the_proxy_go_to_the_engine_and_not_into_memory(composed: dict, tmp_path: Path) -> None:
    proxy = composed["services"]["nginx"]
    shell, option, script = proxy["command"]
    assert (shell, option) == ("sh", "-c")
    (tmp_path / "log").mkdir()
    (tmp_path / "nginx").write_text("#!/bin/sh\n")
    (tmp_path / "nginx").chmod(0o755)
    # compose writes a dollar twice where it means one.
    moved = script.replace("$$", "$").replace("/var/log/nginx", str(tmp_path / "log"))
    done = subprocess.run(["sh", "-c", moved], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    links = {f"/var/log/nginx/{it.name}": os.readlink(it) for it in (tmp_path / "log").iterdir()}
    written = set(re.findall(r"/var/log/\S+\.log", (DEPLOY / "nginx" / "saccade.conf").read_text()))
    # What the image's own configuration writes to, besides.
    assert links.keys() == written | {"/var/log/nginx/access.log", "/var/log/nginx/error.log"}
    assert set(links.values()) == {"/dev/stdout", "/dev/stderr"}
