"""Dashboards for Grafana: what is committed is what the generator writes, and what Grafana can show.

Whether their expressions give something is in test_prometheus.py."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from observed import BOARDS, DEPLOY, documented, metric

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
