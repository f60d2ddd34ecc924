"""The alerts of controller and watch: each fires on harm, silence among it, and on nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock.rollout.adapters.probes import Numbers
from tests.manifests.built import MANIFESTS
from tests.serving.test_metrics import PROMTOOL, needs_promtool

RULES = MANIFESTS / "components" / "prometheus" / "controller-rules.yaml"
GROUPS = yaml.safe_load(RULES.read_text(encoding="utf-8"))["spec"]
ALERTS = [rule["alert"] for group in GROUPS["groups"] for rule in group["rules"]]

UP = 'up{job="penstock-controller",instance="%s"}'
LEADS = 'penstock_controller_leader{job="penstock-controller",instance="%s"}'
SINCE = 'penstock_controller_seconds_since_round{instance="%s",workload="digits"}'
LOOKED = 'kube_cronjob_status_last_successful_time{namespace="penstock",cronjob="penstock-watch-a"}'
MADE = 'kube_cronjob_created{namespace="penstock",cronjob="penstock-watch-a"}'

WELL = {
    UP % "a": "1x600",
    UP % "b": "1x600",
    LEADS % "a": "1x600",
    LEADS % "b": "0x600",
    SINCE % "a": "2x600",
    SINCE % "b": "0+60x600",
    LOOKED: "0+60x600",
    MADE: "0x600",
}
GONE = "1x300 _x300"


@needs_promtool
@pytest.mark.parametrize(
    ("over", "fires"),
    [
        ({}, None),
        ({LEADS % "a": "1x300 0x300", LEADS % "b": "0x300 1x300", SINCE % "b": "2x600"}, None),
        ({LEADS % "a": "1x300 0x300"}, "NobodyLeads"),
        ({name: GONE for name in WELL if 'instance="' in name}, "NobodyLeads"),
        ({SINCE % "a": "2x300 2+60x300"}, "ReleaseNotLookedAt"),
        ({LOOKED: "0x600"}, "WatchNotSubmitted"),
        ({LOOKED: "_x600"}, "WatchNotSubmitted"),
    ],
    ids=["well", "handed over", "no leader", "no pod", "stuck", "long ago", "never"],
)
def test_an_alert_fires_on_its_harm_alone(tmp_path: Path, over: dict[str, str], fires: str | None):
    """Ten hours, a point a minute."""
    series = [{"series": name, "values": values} for name, values in {**WELL, **over}.items()]
    assert fired(tmp_path, series) == {fires} - {None}


def fired(folder: Path, series: list[dict[str, str]]) -> set[str]:
    """Return what Prometheus's own evaluation raises at the end."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(GROUPS), encoding="utf-8")
    quiet = [{"alertname": a, "eval_time": "599m", "exp_alerts": list[Any]()} for a in ALERTS]
    asked = {
        "rule_files": ["rules.yaml"],
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": quiet}],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    said = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(folder / "test.yaml")],
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    found = set(re.findall(r"alertname: (\w+)", said.stdout + said.stderr))
    assert bool(found) is bool(said.returncode), said.stderr
    return found


def test_they_wait_for_numbers_that_a_controller_writes():
    text = Numbers(["digits"], lambda: True).text().decode()
    waited = set(re.findall("penstock_controller_[a-z_]+", yaml.safe_dump(GROUPS)))

    assert waited
    assert [name for name in waited if f"# TYPE {name} " not in text] == []
