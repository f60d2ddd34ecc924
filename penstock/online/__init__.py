"""Online features: what is known of one entity now, read from where Feast materialized it.

Feast is not imported: a serving pod starts without it, and a look-up costs a few times the store's
own client instead of Feast's registry look-ups.
"""

from penstock.online.guarded import Guarded
from penstock.online.layout import (
    KeyColumn,
    Layout,
    OnlineError,
    StoreOut,
    UnfitKey,
    ViewLayout,
)
from penstock.online.lookup import Counts, Found, Lookup
from penstock.online.store import opened

# penstock.online.served is left out: a pod that only looks up needs no pyarrow.

__all__ = [
    "Counts",
    "Found",
    "Guarded",
    "KeyColumn",
    "Layout",
    "Lookup",
    "OnlineError",
    "StoreOut",
    "UnfitKey",
    "ViewLayout",
    "opened",
]
