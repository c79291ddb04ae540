"""Dashboards for Grafana: what is committed is what the generator writes, and what Grafana can show.

Whether their expressions give something is in test_prometheus.py."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from observed import BOARDS, DEPLOY, documented, metric
from panels import Board

FOLDER = DEPLOY / "grafana"
WRITTEN = sorted((FOLDER / "dashboards").glob("*.json"))
UNSEEN = {
    # Told by the recording rule that all three are in, and by that of their shares.
    "saccade_decode_takeovers_total", "saccade_draw_takeovers_total", "saccade_encode_takeovers_total",
    "saccade_device_memory_bytes",
}  # fmt: skip


def generate(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-B", FOLDER / "generate.py", *words], capture_output=True, text=True, timeout=30)


def test_the_committed_dashboards_are_what_the_generator_writes() -> None:
    done = generate("--check")
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in WRITTEN} == {board.uid for board in BOARDS}


def test_a_wrong_argument_is_refused_with_the_right_ones() -> None:
    done = generate("--wrong")
    assert (done.returncode, done.stderr) == (64, "usage: generate.py [--check]\n")


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_panels_say_what_they_show_and_lie_side_by_side(path: Path) -> None:
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem and len(board["uid"]) <= 40
    assert board["description"].endswith(".")
    variables = {it["name"] for it in board["templating"]["list"]}
    assert {"datasource", "job", "instance"} <= variables
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            check(panel, variables)


def check(panel: dict[str, Any], variables: set[str]) -> None:
    title = panel["title"]
    assert panel["description"].endswith("."), title
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, title
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"], title
    steps = [step["value"] for step in defaults["thresholds"]["steps"]]
    assert steps[0] is None and steps[1:] == sorted(steps[1:]), title
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs) > 0, title
    for target in panel["targets"]:
        assert target["legendFormat"] and target["datasource"] == panel["datasource"], title
        used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
        assert used <= variables, f"{title} uses {used - variables}"


# The end of a metric's name, and the units that a value of it may be shown in; of a counter, what it counts in a second.
UNITS = {
    "seconds": {"s", "dateTimeAsIso"},
    "bytes": {"bytes"},
    "ratio": {"percentunit"},
    "celsius": {"celsius"},
    "watts": {"watt"},
    "bytes_total": {"Bps"},
}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_values_are_shown_in_their_unit(board: Board) -> None:
    wrong = []
    for panel in board.panels():
        for query in panel.queries:
            # A gauge as it is or summed up, a counter's rate, a histogram's percentile: what changes no unit.
            plain = re.match(r"(?:(?:sum|max|avg)(?: by \([^)]*\))? ?)?\(*(?:rate\()?(saccade_\w+|process_\w+)\{[^}]*\}(?:\[[^]]*\])?\)*(?: and on .*)?(?: \* 1000)?$", query.expr)
            percentile = re.match(r"histogram_quantile\(.*rate\((\w+)_bucket", query.expr)
            name = (percentile or plain or [None, ""])[1]
            ends = [end for end in UNITS if name.endswith(f"_{end}")]
            if ends and panel.unit.value not in UNITS[ends[-1]]:
                wrong.append(f"{panel.title}: {name} in {panel.unit.value}")
    assert not wrong, wrong


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_grafana_s_own_types_know_every_field(path: Path) -> None:
    """What is read into them, of the version that compose.yaml runs, and written again is the same."""
    board = json.loads(path.read_text())
    assert not set(lost(board, read_again(board))) - LEGACY


def test_a_field_that_grafana_does_not_know_would_be_found() -> None:
    board = json.loads(WRITTEN[0].read_text())
    panel = next(it for it in board["panels"] if it["type"] == "timeseries")
    panel["fieldConfig"]["defaults"]["custom"]["lineWith"] = panel["options"]["legendd"] = 1
    assert set(lost(board, read_again(board))) - LEGACY == {
        "/panels/*/fieldConfig/defaults/custom/lineWith",
        "/panels/*/options/legendd",
    }


def test_the_types_are_of_the_version_that_is_run() -> None:
    image = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["grafana"]["image"]
    pinned = re.search(r"^grafana-foundation-sdk==.*!(\d+\.\d+)\.", (DEPLOY.parent / "tests/requirements.txt").read_text(), re.M)
    assert re.search(r":(\d+\.\d+)\.", image)[1] == pinned[1]


# Fields that Grafana reads, and its types lack: of annotations and variables of Prometheus as they were before version 10.
LEGACY = {f"/annotations/list/*/{it}" for it in ("step", "textFormat", "titleFormat")} | {"/templating/list/*/definition"}


def read_again(board: dict[str, Any]) -> dict[str, Any]:
    plugins.register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Where something is no longer what it was."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from lost(value, after[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from lost(one, other, f"{path}/*")
    elif before != after:
        yield path


def test_every_metric_is_on_a_dashboard() -> None:
    text = "\n".join(path.read_text() for path in WRITTEN)
    shown = set(map(metric, re.findall(r"saccade_\w+", text)))
    assert documented().keys() - shown - UNSEEN == set()


def test_provisioning_names_the_data_source_and_the_folder() -> None:
    (source,) = yaml.safe_load((FOLDER / "provisioning" / "datasources" / "saccade.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    scrape = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape
    (provider,) = yaml.safe_load((FOLDER / "provisioning" / "dashboards" / "saccade.yml").read_text())["providers"]
    assert provider["type"] == "file" and provider["options"]["path"].endswith("/saccade")
