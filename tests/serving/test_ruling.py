"""Laws of the server that answers by rules alone, as the kill switch may need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from penstock.bundle import write_json
from penstock.online import Layout
from penstock.online.layout import KeyColumn, ViewLayout
from penstock.request import v1_request
from serving.package import NotServable
from serving.ruling import Ruled
from tests.packages import (
    DIGITS,
    GOLDEN,
    body,
    free_port,
    make_package,
    predictor,
    records,
    wait_for,
)

LAYOUT = Layout(
    project="p",
    service="s",
    definitions="d",
    views=(
        ViewLayout(
            name="captures",
            keys=(KeyColumn(name="capture_id", asked="capture_id", kind="INT64"),),
            features=("pixels",),
            fields=("00",),
            ttl_s=None,
        ),
    ),
)
RULES = '''"""Rules that say zero."""

import numpy as np


def rules(columns):
    n = len(next(iter(columns.values())))
    return np.tile([0.91] + [0.01] * 9, (n, 1))
'''
SAID = [0.91] + [0.01] * 9
PATH = "/v1/models/digits:predict"


def package(path: Path, rules: str = RULES) -> Path:
    """Write a package that looks its pixels up, with rules."""

    def more(folder: Path) -> None:
        write_json(folder / "online.json", LAYOUT.to_dict())
        (folder / "rules.py").write_text(rules)

    make_package(path, more=more)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, Path]]:
    """A server of rules whose feature store is away: its address, process and log."""
    folder = tmp_path_factory.mktemp("ruling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_ONLINE", f"redis://127.0.0.1:{free_port()}/0")
        patch.delenv("PENSTOCK_SALT", raising=False)
        held = package(folder / "package")
        more = ("--rules-only", "--slot", "rules")
        with predictor(held, folder / "log", *more) as (process, port):
            yield f"http://127.0.0.1:{port}", process.pid, folder / "log"


def test_every_form_is_answered_by_the_rules_and_says_so(server: tuple[str, int, Path]):
    """Whole requests and those of a key alone, with the store away: the rules' answer, marked."""
    url, _, log = server
    rows = [{"pixels": row.tolist()} for row in GOLDEN]
    whole = httpx.post(url + PATH, json=v1_request(DIGITS, rows))
    tensors = httpx.post(url + "/v2/models/digits/infer", content=body(GOLDEN))
    by_key = httpx.post(url + PATH, json={"instances": [{"capture_id": 3}]})

    for answer in (whole, tensors, by_key):
        assert answer.status_code == 200
        assert answer.headers["x-penstock-fallback"] == "rules"
        assert answer.headers["x-penstock-slot"] == "rules"
    assert [row["label"] for row in whole.json()["predictions"]] == [0] * len(rows)
    assert np.allclose(whole.json()["predictions"][0]["probability"], SAID)
    assert np.allclose(by_key.json()["predictions"][0]["probability"], SAID)
    wait_for(lambda: len(records(log)) == 3, 5)
    assert all(line["fallbacks"] == ["rules"] for line in records(log))
    assert {line["slot"] for line in records(log)} == {"rules"}


def test_no_model_is_loaded(server: tuple[str, int, Path]):
    """The process holds no runtime that could run one."""
    _, pid, _ = server

    assert "onnxruntime" not in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("def rules(columns):\n    raise KeyError('months_late')\n", "fail on golden"),
        (RULES.replace("0.91", "0.0"), "no probabilities"),
    ],
)
def test_rules_that_give_no_probabilities_are_not_served(tmp_path: Path, rules: str, said: str):
    """A server of rules is ready only when they answered the golden requests."""
    ruled = Ruled(package(tmp_path / "package", rules))

    with pytest.raises(NotServable, match=said):
        ruled.check_golden()


def test_a_package_without_rules_says_what_to_write(tmp_path: Path):
    """What cannot answer does not start; the text names the file."""
    make_package(tmp_path / "package")

    with pytest.raises(NotServable, match=r"rules\.py"):
        Ruled(tmp_path / "package")


def test_probabilities_are_the_rules_own_to_the_last_bit(tmp_path: Path):
    """A share at the threshold is decided as the rules say it, whoever serves them."""
    ruled = Ruled(package(tmp_path / "package"))
    columns = {"pixels": np.zeros((5, 64))}

    assert ruled.probabilities(columns).tolist() == [SAID] * 5
