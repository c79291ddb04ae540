"""What a dashboard consists of, and how Grafana wants it written."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

# In expressions, `@` stands for the chosen servers and `[R]` for the window that Grafana thinks right for a rate.
SERVERS = 'job=~"$job",instance=~"$instance"'
RATE = "[$__rate_interval]"
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# The last value of the time that is looked at.
LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}


class Unit(Enum):
    """Units, by Grafana's ids."""

    SECONDS = "s"
    BYTES = "bytes"
    BYTES_PER_SECOND = "Bps"
    # Of milliseconds since 1970.
    MOMENT = "dateTimeAsIso"
    SHARE = "percentunit"
    PERCENT = "percent"
    COUNT = "short"
    PER_SECOND = "ops"
    FRAMES_PER_SECOND = "framesps"
    PACKETS_PER_SECOND = "pps"
    REQUESTS_PER_SECOND = "reqps"
    CELSIUS = "celsius"
    WATTS = "watt"
    MEBIBYTES = "mbytes"
    MONEY = "currencyUSD"


class Kind(Enum):
    """How a panel shows what it asked for."""

    LINES = "timeseries"
    STAT = "stat"
    GAUGE = "gauge"
    HEATMAP = "heatmap"
    TABLE = "table"


@dataclass(frozen=True)
class Step:
    """From this value on, a panel has this colour."""

    value: float | None
    color: str


def ladder(*, warn: float, bad: float) -> tuple[Step, ...]:
    """Green, yellow from `warn` on and red from `bad` on; the other way round where less is worse."""
    if warn < bad:
        return Step(None, "green"), Step(warn, "yellow"), Step(bad, "red")
    return Step(None, "red"), Step(bad, "yellow"), Step(warn, "green")


@dataclass(frozen=True)
class Query:
    """An expression of PromQL, and what its series are called; `{{label}}` stands for a label's value."""

    text: str
    legend: str = "{{instance}}"

    @property
    def expr(self) -> str:
        return self.text.replace("@", SERVERS).replace("[R]", RATE)


@dataclass(frozen=True)
class Panel:
    """One picture: what it is called, what it means, and what it asks."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: Unit = Unit.COUNT
    kind: Kind = Kind.LINES
    steps: tuple[Step, ...] = ()
    width: int = 8
    height: int = 8
    # Least and greatest value of the axis, where they are known.
    least: float | None = 0
    most: float | None = None
    is_stacked: bool = False
    # Whether a logarithmic axis says more.
    is_logarithmic: bool = False

    def __post_init__(self) -> None:
        if not (self.title and self.description.endswith(".") and self.queries and 0 < self.width <= COLUMNS):
            raise ValueError(f"panel {self.title!r} needs a title, a description that is a sentence, queries and a width of 1 to {COLUMNS}")

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """As Grafana reads it, at this place of the grid."""
        targets = [
            {
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": query.expr,
                "format": "heatmap" if self.kind is Kind.HEATMAP else "table" if self.kind is Kind.TABLE else "time_series",
                "instant": self.kind is Kind.TABLE,
                "legendFormat": "{{le}}" if self.kind is Kind.HEATMAP else query.legend,
                "range": self.kind is not Kind.TABLE,
                "refId": chr(ord("A") + place),
            }
            for place, query in enumerate(self.queries)
        ]
        defaults: dict[str, Any] = {"unit": self.unit.value, "custom": self._custom()}
        if self.least is not None:
            defaults["min"] = self.least
        if self.most is not None:
            defaults["max"] = self.most
        steps = self.steps or (Step(None, "green"),)
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": it.color, "value": it.value} for it in steps]}
        if self.kind in (Kind.STAT, Kind.GAUGE):
            defaults["color"] = {"mode": "thresholds"}
        panel = {
            "id": number,
            "type": self.kind.value,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": targets,
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": self._options(),
        }
        if self.kind is Kind.TABLE:
            # It has a column for each label, and one for when Prometheus was asked, which says nothing.
            panel["transformations"] = [{"id": "organize", "options": {"excludeByName": {"Time": True, "__name__": True}}}]
        return panel

    def _custom(self) -> dict[str, Any]:
        if self.kind is not Kind.LINES:
            return {}
        custom: dict[str, Any] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if self.is_stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if self.is_stacked else "none", "group": "A"},
            "scaleDistribution": {"type": "log", "log": 10} if self.is_logarithmic else {"type": "linear"},
        }
        if self.steps:
            custom["thresholdsStyle"] = {"mode": "dashed"}
        return custom

    def _options(self) -> dict[str, Any]:
        match self.kind:
            case Kind.LINES:
                return {
                    "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["mean", "max", "lastNotNull"], "showLegend": True},
                    "tooltip": {"mode": "multi", "sort": "desc"},
                }
            case Kind.STAT:
                return {"reduceOptions": LAST, "colorMode": "value", "textMode": "auto"}
            case Kind.GAUGE:
                return {"reduceOptions": LAST, "showThresholdMarkers": True, "showThresholdLabels": False}
            case Kind.HEATMAP:
                return {
                    "calculate": False,
                    "yAxis": {"unit": self.unit.value},
                    "cellValues": {"unit": "short"},
                    "color": {"mode": "scheme", "scheme": "Spectral", "steps": 64},
                    "legend": {"show": True},
                    "tooltip": {"mode": "single", "yHistogram": True},
                }
            case Kind.TABLE:
                return {"showHeader": True, "cellHeight": "sm"}


@dataclass(frozen=True)
class Row:
    """Panels below a headline, from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Number:
    """A figure that whoever looks types in, such as a price."""

    name: str
    label: str
    value: str


@dataclass(frozen=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    numbers: tuple[Number, ...] = field(default=())

    def panels(self) -> Iterator[Panel]:
        """All panels, in their order."""
        for row in self.rows:
            yield from row.panels

    def json(self) -> dict[str, Any]:
        """As Grafana reads it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["saccade"],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "annotations": {"list": [_alerts()]},
            "links": [_others()],
            "templating": {"list": [*_choices(), *map(_number, self.numbers)]},
            "panels": list(self._placed()),
        }

    def _placed(self) -> Iterator[dict[str, Any]]:
        number, y = 1, 0
        for row in self.rows:
            yield {
                "id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [],
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
            }  # fmt: skip
            number, y, x, deepest = number + 1, y + 1, 0, 0
            for panel in row.panels:
                if x + panel.width > COLUMNS:
                    x, y, deepest = 0, y + deepest, 0
                yield panel.json(number, x, y)
                number, x, deepest = number + 1, x + panel.width, max(deepest, panel.height)
            y += deepest


def _choices() -> list[dict[str, Any]]:
    """Variables: where to ask, and of which servers."""
    source = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0}
    asked = [("job", "Job", "label_values(saccade_build_info, job)")]
    asked.append(("instance", "Server", 'label_values(saccade_build_info{job=~"$job"}, instance)'))
    return [source] + [
        {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }
        for name, label, query in asked
    ]


def _number(number: Number) -> dict[str, Any]:
    current = {"text": number.value, "value": number.value}
    return {"name": number.name, "label": number.label, "type": "textbox", "query": number.value, "current": current, "options": [current]}


def _alerts() -> dict[str, Any]:
    """Marks on the time axis where an alert fired."""
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Saccade.*",alertstate="firing",severity=~"page|ticket"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}}",
        "step": "60s",
    }


def _others() -> dict[str, Any]:
    return {
        "type": "dashboards", "tags": ["saccade"], "title": "Saccade", "asDropdown": True,
        "includeVars": True, "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "", "url": "",
    }  # fmt: skip
