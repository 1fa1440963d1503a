"""The dashboard and the alert rules in the examples ask for metrics, labels and values that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dotmac.tasks.errors import EnvironmentFault
from dotmac.tasks.models import OperationStatus
from dotmac.tasks.observability.prometheus import PrometheusMetrics

EXAMPLES = Path(__file__).parents[2] / "examples" / "observability"
ADDED_BY_THE_SCRAPER = {"job"}
VALUES = {
    "status": {str(status) for status in OperationStatus},
    "state": {"alive", "lost"},
    "outcome": {"succeeded", "failed", "lost", "acquired", "created", "hit", "completed"},
    "handling": {"unprotected", "refused"},
    "error": {kind.__name__ for kind in EnvironmentFault.__subclasses__()},
}


def panels() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())["panels"]
    return listed


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((EXAMPLES / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def expressions() -> list[str]:
    of_panels = [target["expr"] for panel in panels() for target in panel["targets"]]
    return of_panels + [rule["expr"] for rule in alerts()]


def known() -> dict[str, set[str]]:
    """Names of samples, and their labels."""
    names: dict[str, set[str]] = {}
    for collector in list(PrometheusMetrics().registry._collector_to_names):
        labels = set(vars(collector)["_labelnames"])
        for metric in collector.describe() if hasattr(collector, "describe") else []:
            endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}[metric.type]
            for ending in endings:
                names[metric.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return names


@pytest.mark.parametrize("expression", expressions())
def test_what_is_asked_for_exists(expression: str) -> None:
    names = known()
    asked = re.findall(r"(dotmac_tasks_\w+)(?:\{([^}]*)\})?", expression)
    assert asked
    grouped = {name.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for name in group.split(",")}
    for name, matchers in asked:
        assert name in names
        assert grouped <= names[name]
        for label, operator, values in re.findall(r"(\w+)(=~|!=|=)\"([^\"]*)\"", matchers):
            assert label in names[name] | ADDED_BY_THE_SCRAPER
            if label in VALUES:
                assert set(values.split("|")) <= VALUES[label], operator


def test_alerts_say_what_is_the_matter() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    for rule in alerts():
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "warning")


def test_panels_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        cells |= own


def test_the_dashboard_shows_every_metric() -> None:
    shown = " ".join(expressions())
    for name in known():
        family = re.sub(r"_(bucket|count|sum|total)$", "", name)
        assert family in shown
