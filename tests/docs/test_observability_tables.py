"""Compares the tables of docs/observability.md with the metrics that there are."""

from __future__ import annotations

import re

from docs.documents import ROOT, names_in
from dotmac.tasks.observability.prometheus import PrometheusMetrics


def test_every_metric_is_listed_with_its_labels() -> None:
    text = (ROOT / "docs" / "observability.md").read_text()
    rows = [re.split(r"\s*\|\s*", line)[1:3] for line in text.splitlines() if line.startswith("| `dotmac_tasks_")]
    listed = {names_in(name)[0].removesuffix("_total"): tuple(names_in(labels)) for name, labels in rows}
    collectors = PrometheusMetrics().registry._collector_to_names
    assert listed == {vars(known)["_name"]: tuple(vars(known)["_labelnames"]) for known in collectors}
