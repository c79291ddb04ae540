"""Rules for Prometheus: what promtool says, what they name, and whether each expression of rules, dashboards and autoscalers gives
something.

The latter against a real Prometheus that scrapes a real server under load."""

import asyncio
import math
import re
import subprocess
from pathlib import Path

import aiohttp
import pytest
import yaml
from observed import (
    DEPLOY, LIMIT, NEWER, RULES, Prometheus, documented, load, metric, missing, of_autoscalers, of_panels, of_rules, receiver, rules,
    start,
)  # fmt: skip
from server import ROOT

TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
# Seconds in which every expression has to give something, with scrapes every second.
SOON = 60.0
# Labels that Prometheus itself gives, and those of the process' usual metrics and of NVIDIA's exporter.
GIVEN = {"job", "instance", "le", "alertname", "alertstate", "severity", "gpu"}
# Metrics of others: of every process, of every scrape, and of NVIDIA's DCGM exporter with its default counters.
OTHERS = re.compile(r"process_\w+|up|ALERTS|DCGM_FI_DEV_(GPU_TEMP|POWER_USAGE|GPU_UTIL|ENC_UTIL|DEC_UTIL|FB_USED|XID_ERRORS|ROW_REMAP_FAILURE)")

# Labels whose values are words in the code; status codes and routes are the protocol's.
WORDS = {"outcome", "reason", "end_reason", "stage", "queue", "tier", "path", "step", "state", "engine", "resource"}

# What says nothing on a machine like this one, and why. Names and labels are checked all the same.
SILENT = {
    r"DCGM_FI_": "NVIDIA's exporter runs where a GPU is",
    r"nv_inference_": "Triton is another program",
    r"saccade_device_(?!watch)|instance:saccade_device_memory|saccade_draw_refused_total": "there is no GPU",
    r"saccade_device_watch_failures_total": "GPUs are asked where there are some",
    r"saccade_cluster_": "there is one server",
    r"saccade_trace_": "there is no collector",
    r"saccade_memory_sheds_total": "there is memory enough",
    r"saccade_memory_refused_total": "there is memory enough",
    r"saccade_remote_re": "no model is at another server",
    r"saccade_model_rollbacks_total": "no version is worse than the one before",
    r"saccade_routes_unsaved_total": "every route is saved",
    r"saccade_http2_cut_total|saccade_connections_refused_total": "nobody misbehaves",
    r"saccade_history_(dropped|failures)_total\{": "the store does its work",
    r"offset 1d": "there is no yesterday",
    r"absent\(": "something is there",
}


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    said = promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    assert f"{len(RULES)} rule files found" in said, said


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", *TESTS)


def test_each_alert_is_tested_to_be_quiet_and_to_fire() -> None:
    quiet, fires = set(), set()
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case["promql_expr_test"]:
                alert = re.search(r'alertname="(\w+)"', check["expr"])[1]
                (fires if check["exp_samples"] else quiet).add(alert)
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert (alerts - quiet, alerts - fires, (quiet | fires) - alerts) == (set(), set(), set())


def test_each_alert_says_what_to_do() -> None:
    pages = {path.stem: path.read_text() for path in (DEPLOY / "runbooks").glob("Saccade*.md")}
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert pages.keys() == alerts
    for rule in (it for it in rules() if "alert" in it):
        assert rule["labels"]["severity"] in ("page", "ticket", "info"), rule
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}, rule
        assert rule["annotations"]["runbook_url"] == f"deploy/runbooks/{rule['alert']}.md"
    parts = ("## What it means", "## How to see it", "## What to do", "## When it is harmless")
    for name, text in pages.items():
        assert text.startswith(f"# {name}\n"), name
        missing = [part for part in parts if f"\n{part}\n" not in text]
        assert not missing, f"{name} lacks {missing}"


def test_runbooks_name_settings_metrics_and_panels_that_exist() -> None:
    example, boards = (ROOT / "saccade.example.toml").read_text(), {path.stem for path in (DEPLOY / "grafana" / "dashboards").glob("*.json")}
    sections = {match[1]: match[2] for match in re.finditer(r"^\[(\w+)\]\n(.*?)(?=^\[|\Z)", example, re.MULTILINE | re.DOTALL)}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    unknown = []
    for path in (DEPLOY / "runbooks").glob("*.md"):
        text = path.read_text()
        for section, key in re.findall(r"`(\w+)\.(\w+)(?: = [^`]*)?`", text):
            if not re.search(rf"^(?:# )?{key} = ", sections.get(section, ""), re.MULTILINE):
                unknown.append(f"{path.stem}: setting {section}.{key}")
        for name in re.findall(r"(?<!:)\b(saccade_\w+)", text):
            if metric(name) not in NEWER | documented():
                unknown.append(f"{path.stem}: metric {name}")
        unknown += [f"{path.stem}: rule {it}" for it in re.findall(r"\b(?:job|instance):[\w:]+", text) if it not in recorded]
        unknown += [f"{path.stem}: board {it}" for it in re.findall(r"dashboard `([\w-]+)`", text) if it not in boards]
        unknown += [f"{path.stem}: file {it}" for it in re.findall(r"\]\(([^)#]+)\)", text) if not (path.parent / it).exists()]
    assert not unknown, "\n".join(unknown)


def test_expressions_name_metrics_and_labels_that_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = NEWER | documented()
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.rs"))
    wrong = []
    for place, expr in [*of_rules(), *of_panels()]:
        bare = re.sub(r'"[^"]*"', '""', expr)
        for name in re.findall(r"(?<![:\w])((?:job|instance):[\w:]+)", bare):
            if name not in recorded:
                wrong.append(f"{place}: no rule records {name}")
        for name, matchers in re.findall(r"(?<![:\w])([A-Za-z_]\w*)(?:(?=\[)|(?=\{)|(?= |\)|$))(\{[^}]*\})?", expr):
            of = metric(name)
            if not name.startswith("saccade_"):
                continue
            if of not in known:
                wrong.append(f"{place}: no metric is called {of}")
                continue
            for label, _, values in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
                if label not in known[of] | GIVEN:
                    wrong.append(f"{place}: {of} has no label {label}")
                words = re.findall(r"\w+", values) if label in WORDS and of not in missing() else []
                wrong += [f"{place}: nothing in the code says {label}={word}" for word in words if f'"{word}"' not in code]
        for labels in re.findall(r"by \(([^)]*)\)", bare):
            names = {it.strip() for it in labels.split(",")}
            metrics = [known[it] for it in map(metric, re.findall(r"(?<![:\w])saccade_\w+", bare)) if it in known]
            told = set().union(GIVEN, *metrics, *({"queue", "stage", "direction", "reason", "device", "model", "sink"} for _ in re.findall(r"instance:|job:", bare)))
            wrong += [f"{place}: by ({it}), which none of its metrics has" for it in names - told]
        wrong += [f"{place}: {it} is nobody's" for it in re.findall(r"\b(?:process|DCGM)_\w+", bare) if not OTHERS.fullmatch(it)]
    assert not wrong, "\n".join(sorted(set(wrong)))


async def test_every_expression_of_rules_dashboards_and_autoscalers_gives_something(tmp_path: Path) -> None:
    with receiver() as hook:
        server = start(tmp_path, hook)
        prometheus = Prometheus(tmp_path, server.ops.removeprefix("http://"))
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LIMIT)) as http:
                await prometheus.ready(http)
                async with load(server, http, tmp_path / "models") as work:
                    await all_given(prometheus, http, work)
        finally:
            prometheus.stop()
            server.terminate()
            code, _ = server.wait(15)
        # Not `stop`: it is an error in its log that a model cannot be used.
        assert code == 0 and "panicked" not in server.said(), server.said()


def test_what_may_be_silent_is_asked() -> None:
    asked = [expr for _, expr in [*of_rules(), *of_panels(), *of_autoscalers()]]
    assert [it for it in SILENT if not any(re.search(it, expr) for expr in asked)] == []


async def all_given(prometheus: Prometheus, http: aiohttp.ClientSession, work: list[asyncio.Task]) -> None:
    """Asks until every expression that can gives a number."""
    waiting = dict.fromkeys([*of_rules(), *of_panels(), *of_autoscalers()])
    silent = {it for it in waiting if any(re.search(reason, it[1]) for reason in [*SILENT, *missing()])}
    left: list[tuple[str, str]] = list(waiting)
    deadline = asyncio.get_running_loop().time() + SOON
    # Expressions that can say nothing here have to be understood.
    for _, expr in silent:
        await prometheus.ask(http, expr)
    while left := [it for it in left if it not in silent and not is_number(await prometheus.ask(http, it[1]))]:
        for task in work:
            if task.done():
                task.result()
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail("these give nothing:\n" + "\n".join(f"{place}: {expr}" for place, expr in left))
        await asyncio.sleep(1)


def is_number(result: list[dict]) -> bool:
    """Whether a series of an answer has a value that is one."""
    return any(math.isfinite(float(it["value"][1])) for it in result)
