"""Laws of what watches an endpoint: dashboard, alerts and guide name what really is exported."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from penstock.rollout import admin
from penstock.rollout.plane import Plane
from penstock.rollout.targets import EDGE_JOB, FILE, SLOTS_JOB
from tests.packages import free_port
from tests.serving.test_metrics import everything, served

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "how-to" / "watch-an-endpoint.md").read_text(encoding="utf-8")
ALERTS = (ROOT / "manifests" / "base" / "alerts.yaml").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((ROOT / "manifests" / "base" / "dashboard.json").read_text())

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not here; install the package prometheus to run this"
)


def queries() -> list[str]:
    """Return what the dashboard asks, with its variables filled in."""
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [q.replace("$__rate_interval", "5m").replace("$model", ".*") for q in asked]


def checked(kind: str, path: Path, held: Any) -> str:
    """Return what Prometheus's own tool complains of in a file."""
    path.write_text(yaml.safe_dump(held), encoding="utf-8")
    said = subprocess.run(
        [str(PROMTOOL), "check", kind, str(path)],
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    return said.stdout + said.stderr if said.returncode else ""


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What a real edge exports: the names of its metrics, and of each the labels' values."""
    plane = Plane.up(tmp_path_factory.mktemp("edge"), model="digits", port=free_port())
    try:
        text = admin.ask(plane.status()["admin"], "GET", "/stats/prometheus").decode()
    finally:
        plane.down()
    found: dict[str, set[str]] = {}
    for line in re.findall(r"^envoy_\w+\{.*\}", text, re.MULTILINE):
        name, _, labels = line.partition("{")
        found.setdefault(name, set()).update(re.findall(r'\w+="[^"]*"', labels))
    return found


def test_the_dashboard_shows_what_a_release_is_watched_by():
    """Volume, latency by percentiles, errors, the versions, and what is known of the inputs."""
    titles = [panel["title"] for panel in DASHBOARD["panels"]]

    assert titles == ["Volume", "Latency", "Errors", "Versions", "Features"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(titles)
    latency = " ".join(target["expr"] for target in DASHBOARD["panels"][1]["targets"])
    assert re.findall(r"histogram_quantile\((\S+),", latency) == ["0.5", "0.95", "0.99"]


def test_the_dashboard_names_metrics_and_labels_that_a_server_exports():
    """No panel is empty for ever; model and slot are the target's labels, not the server's."""
    with served(everything()) as url:
        families = list(text_string_to_metric_families(httpx.get(url).text))
    shown = {s.name: set(s.labels) for family in families for s in family.samples}

    names = set(re.findall(r"penstock_\w+", " ".join(queries())))
    assert names
    assert names <= set(shown)
    theirs = {label for name in names for label in shown[name]} | {"model", "slot", "instance"}
    edges = {"job", "envoy_http_conn_manager_prefix", "envoy_response_code_class"}
    matched = set(re.findall(r"(\w+)=~?\"", " ".join(queries())))
    grouped = re.findall(r"(?:by|on) \(([^)]*)\)", " ".join(queries()))
    asked = matched | {label.strip() for group in grouped for label in group.split(",")}
    assert asked <= theirs | edges


def test_alerts_guide_and_dashboard_name_what_a_real_edge_exports(edge: dict[str, set[str]]):
    """Names, listeners, classes and slots are Envoy's own, from its start, so a rise is seen."""
    for text in (ALERTS, GUIDE, " ".join(queries())):
        names = set(re.findall(r"envoy_(?:http|cluster)_\w+(?=[`{])", text))
        names -= {"envoy_http_conn_manager_prefix", "envoy_cluster_name"}
        assert names
        assert names <= set(edge)
        for label in re.findall(r'envoy_\w+="[^"]*"', text):
            assert any(label in edge[name] for name in names), label
    slots = edge["envoy_cluster_membership_healthy"]
    assert {'envoy_cluster_name="a"', 'envoy_cluster_name="b"'} <= slots


def test_alerts_and_guide_wait_for_the_jobs_that_targets_have():
    """An alert for a job that nobody has is silent for ever."""
    for text in (ALERTS, GUIDE):
        assert set(re.findall('job="([^"]*)"', text)) == {SLOTS_JOB, EDGE_JOB}


@needs_promtool
def test_prometheus_reads_every_query_of_the_dashboard(tmp_path: Path):
    """As rules, which is how its own tool checks an expression."""
    rules = [{"record": f"panel:{n}", "expr": query} for n, query in enumerate(queries())]

    assert checked("rules", tmp_path / "r.yaml", {"groups": [{"name": "d", "rules": rules}]}) == ""


@needs_promtool
def test_prometheus_takes_the_guides_configuration(tmp_path: Path):
    """What is shown can be copied; its paths are seen from the repository."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / ".penstock" / "serving").mkdir(parents=True)
    (tmp_path / ".penstock" / "serving" / FILE).write_text("[]")
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    held = yaml.safe_load(shown)

    assert held["rule_files"] == ["manifests/base/alerts.yaml"]
    assert held["scrape_configs"][0]["file_sd_configs"] == [
        {"files": [f".penstock/serving/{FILE}"]}
    ]
    assert checked("config", tmp_path / "prometheus.yml", held) == ""
