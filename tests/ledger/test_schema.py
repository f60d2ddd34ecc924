"""How the ledger's database is reached."""

from __future__ import annotations

import pytest

from penstock.ledger.schema import PATIENCE, connected
from tests.ledger.conftest import Place


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_database_that_has_gone_silent_is_not_waited_for(place: Place):
    """Unless the address says how long: that is its owner's."""

    def asked(url: str) -> dict[str, str]:
        engine = connected(url)
        try:
            with engine.connect() as connection:
                return connection.connection.driver_connection.info.get_parameters()
        finally:
            engine.dispose()

    ours, theirs = asked(place.url), asked(f"{place.url}?connect_timeout=3")

    assert {name: ours[name] for name in PATIENCE} == {k: str(v) for k, v in PATIENCE.items()}
    assert theirs["connect_timeout"] == "3"
    assert theirs["keepalives_idle"] == ours["keepalives_idle"]
