"""What the security page says is there is what there is."""

from __future__ import annotations

import re

from tests.manifests.built import MANIFESTS, ROOT, needs_kubectl, objects, of_kind
from tests.manifests.setrules import MADE_BY_PEOPLE

SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [line for line in SECURITY.splitlines() if line.startswith("|")]


def test_every_secret_and_its_keys_are_described():
    """And none is described that nobody reads."""
    for (namespace, name), keys in MADE_BY_PEOPLE.items():
        rows = [row for row in ROWS if row.startswith(f"| `{name}`")]
        assert rows, name
        both = [row for row in rows if f"`{namespace}`" in row or "both" in row]
        assert any(all(f"`{key}`" in row for key in keys) for row in both), (namespace, name)


@needs_kubectl
def test_every_account_has_a_row():
    for account in of_kind(objects("gpu"), "ServiceAccount"):
        assert any(row.startswith(f"| `{account['metadata']['name']}`") for row in ROWS)


@needs_kubectl
def test_every_open_port_has_a_reason():
    """In the table of who may talk to whom, and no port is there that is closed."""
    table = SECURITY.split("## Who may talk to whom?")[1].split("##")[0]
    said = {int(n) for row in table.splitlines() for n in re.findall(r"\b\d{2,5}\b", row[:200])}
    open_ports = {
        port["port"]
        for policy in of_kind(objects("gpu"), "NetworkPolicy")
        for rule in [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]
        for port in rule["ports"]
    }

    assert open_ports <= said
    assert {n for n in said if f"| {n} |" in table or f", {n} |" in table} <= open_ports


def test_every_component_is_listed():
    readme = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    for folder in (MANIFESTS / "components").iterdir():
        assert folder.name == "values" or f"`{folder.name}`" in readme
