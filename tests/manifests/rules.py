"""The alerts as the Prometheus operator takes them: the same groups, inside an object."""

from __future__ import annotations

import yaml

from tests.manifests.built import MANIFESTS

ALERTS = MANIFESTS / "base" / "alerts.yaml"
RULES = MANIFESTS / "components" / "prometheus" / "rules.yaml"

_ABOUT = """\
# The alerts of base/alerts.yaml, for the Prometheus operator. Written by
#   PENSTOCK_GOLDEN=rewrite .venv/bin/pytest tests/manifests
"""


def made() -> str:
    """Return the text of the object that holds the alerts."""
    held = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "penstock", "namespace": "models"},
        "spec": yaml.safe_load(ALERTS.read_text(encoding="utf-8")),
    }
    return _ABOUT + yaml.safe_dump(held, sort_keys=False, width=100)
