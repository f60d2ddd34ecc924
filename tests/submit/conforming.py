"""Whether a document is what the published API says: the generated client's models, read strictly.

The client itself drops what it does not know and takes any value for any type.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from kfp_server_api import models

PLAIN: dict[str, Any] = {"str": str, "int": int, "bool": bool, "float": (int, float)}


class Unpublished(AssertionError):
    """A document holds what the published API does not have."""


def conform(document: Any, kind: str, where: str = "") -> None:
    """Refuse a document that is not of a published type, unknown fields included."""
    where = where or kind
    if held := re.fullmatch(r"list\[(.+)\]", kind):
        _is(document, list, where)
        for i, one in enumerate(document):
            conform(one, held[1], f"{where}[{i}]")
    elif held := re.fullmatch(r"dict\(str, (.+)\)", kind):
        _is(document, dict, where)
        for key, one in document.items():
            conform(one, held[1], f"{where}.{key}")
    elif kind in PLAIN:
        if isinstance(document, bool) and kind != "bool":
            raise Unpublished(f"{where}: {document!r} is no {kind}")
        _is(document, PLAIN[kind], where)
    elif kind == "datetime":
        _is(document, str, where)
        datetime.fromisoformat(document)
    elif kind != "object":
        _model(document, getattr(models, kind), where)


def _model(document: Any, model: Any, where: str) -> None:
    if not model.openapi_types:
        if document not in model.allowable_values:
            raise Unpublished(f"{where}: {document!r} is none of {model.allowable_values}")
        return
    _is(document, dict, where)
    published = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    for name, value in document.items():
        if name not in published:
            raise Unpublished(f'{where}: unknown field "{name}"')
        conform(value, published[name], f"{where}.{name}")


def _is(document: Any, kind: Any, where: str) -> None:
    if not isinstance(document, kind):
        raise Unpublished(f"{where}: {document!r} is no {kind}")
