"""Documents of a package: model card, change document, validation summary. All from evidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penstock.bundle import Bundle, write_json, write_text
from penstock.register import card, change, validation
from penstock.workload import Workload


def write(
    folder: Path,
    declared: Workload,
    inputs: Mapping[str, Bundle],
    *,
    lineage: Mapping[str, Any],
    before: Bundle | None,
) -> None:
    """Write card, change document and validation summary into a package's folder.

    Each is a JSON document, and that document as Markdown and as one HTML page that needs nothing
    else; the texts are made of the JSON alone.

    Args:
        folder: Where the package is being made. ``model.onnx``, ``serving.json`` and the like that
            are there already are described; a file that comes later is not.
        inputs: The stages' verified bundles: snapshot, data-verdict, model, serving, engine,
            equivalence, gate.
        lineage: What ``lineage.json`` holds.
        before: The champion's package; None when no version serves yet.
    """
    from penstock.report import card as card_page  # noqa: PLC0415 - plots take a second to import
    from penstock.report import documents, review  # noqa: PLC0415 - the same

    made = {
        "card": (card.compose(folder, declared, inputs, lineage=lineage), card_page.card),
        "change": (
            change.compose(folder, declared, inputs, lineage=lineage, before=before),
            review.change,
        ),
        "validation": (
            validation.compose(declared, inputs, lineage=lineage, before=before),
            review.validation,
        ),
    }
    for name, (document, laid_out) in made.items():
        write_json(folder / f"{name}.json", document)
        page = laid_out(document)
        write_text(folder / f"{name}.md", documents.markdown(page))
        write_text(folder / f"{name}.html", documents.html(page))
