"""Change document and validation summary as pages, made of their JSON alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.report.documents import (
    Block,
    Commands,
    Facts,
    Listed,
    Page,
    Part,
    Says,
    Table,
    ToSign,
    estimate,
    lasting,
    number,
    person,
    rehearsed,
    short,
)

Record = Mapping[str, Any]


def change(document: Record) -> Page:
    """Return the page of a change document: how weighty the change is comes first."""
    weighed = document["materiality"]
    word = "material" if weighed["material"] else "non-material"
    return Page(
        kicker=f"Model change document of {document['workload']}, owned by {document['owner']}",
        title=f"{document['title']}: a {word} change",
        outcome="",
        reason=f"It asks for {weighed['review']}: {'; '.join(weighed['reasons'])}.",
        warning=rehearsed(document["rehearsal"]),
        parts=list(_change(document)),
    )


def _change(document: Record) -> Iterator[Part]:
    about = document["about"]
    yield Part(title="Purpose", blocks=[Says(about["purpose"])])
    yield Part(title="What changed", blocks=list(_changes(document)))
    if document["likeliest"] is not None:
        part = "What most likely moved the metric"
        yield Part(title=part, blocks=_likeliest(document["likeliest"]))
    yield Part(title="Methodology", blocks=[Says(about["methodology"])])
    yield Part(title="Assumptions", blocks=[Listed(about["assumptions"])])
    yield Part(title="Limitations", blocks=[Listed(about["limitations"])])
    yield Part(title="Validation results", blocks=list(_results(document["validation"])))
    yield Part(title="Signatures", blocks=_signatures(document))
    kept = lasting(document["retention_days"])
    said = f"This document is kept for {kept} after the version was retired."
    yield Part(title="How long it is kept", blocks=[Says(said)])


def _changes(document: Record) -> Iterator[Block]:
    against = document["against"]
    if against is None:
        yield Says("There is no champion to compare with: this is the first model.")
        return
    yield Facts([("champion", against["fingerprint"]), ("its package", against["digest"])])
    if not document["changes"]:
        yield Says("Nothing that is on record differs from the champion.")
        return
    rows = [
        [c["group"], c["name"], _value(c["before"]), _value(c["after"]),
         "material" if c["material"] else "–"]
        for c in document["changes"]
    ]  # fmt: skip
    yield Table(["of", "what", "champion", "this version", ""], rows)


def _likeliest(found: Record) -> list[Block]:
    rows = [[c["kind"], c["what"], c["was"], c["now"], c["reason"]] for c in found["changes"]]
    return [
        Says(found["headline"]),
        Says(found["conclusion"]),
        Table(["of", "what", "champion", "this version", "because"], rows),
    ]


def _value(text: str | None) -> str:
    if text is None:
        return "–"
    return (short(text) or "–") if text.startswith("sha256:") else text


def _results(validation: Record) -> Iterator[Block]:
    yield Facts([("gate", validation["outcome"]), ("because", validation["reason"])])
    rows = [
        [name.replace("_", " "), estimate(m["challenger"]), estimate(m["champion"]) or "–",
         estimate(m["difference"], sign=True) or "–"]
        for name, m in validation["metrics"].items()
    ]  # fmt: skip
    yield Table(["metric", "this version", "champion", "difference"], rows)
    if validation["not_passed"]:
        rows = [[c["outcome"], c["name"], c["reason"]] for c in validation["not_passed"]]
        yield Table(["", "check that did not pass", "found"], rows)


def _signatures(document: Record) -> list[Block]:
    said = "To be signed here. The ledger holds who registered the version and signed its contract."
    if document["approval"] == "automatic":
        said += " The workload is released by its evidence: no release waits for these."
    roles = [(s["role"], s["stands_for"]) for s in document["signatures"]]
    return [Says(said), ToSign(roles)]


def validation(document: Record) -> Page:
    """Return the page of a validation summary, open weaknesses before what holds."""
    verdict = document["verdict"]
    return Page(
        kicker=f"Validation summary of {document['workload']}, owned by {document['owner']}",
        title=f"{document['title']}: gate {verdict['outcome']}, to be reviewed",
        outcome=verdict["outcome"],
        reason=verdict["reason"],
        warning=rehearsed(document["rehearsal"]),
        parts=list(_validation(document)),
    )


def _validation(document: Record) -> Iterator[Part]:
    about = document["about"]
    yield Part(
        title="What is reviewed",
        blocks=[
            Says(about["purpose"]),
            Says(about["methodology"]),
            Facts(
                [
                    ("graph that serves", document["version"]),
                    ("developed by", person(document["trained_by"])),
                ]
            ),
        ],
    )
    weak = [[w["what"], w["why"]] for w in document["weaknesses"]]
    found: Block = Table(["what", "why"], weak) if weak else Says("None was found.")
    yield Part(title="Open weaknesses", blocks=[found])
    yield Part(title="What was checked", blocks=list(_checked(document)))
    rows = [[n["what"], n["why"]] for n in document["not_checked"]]
    yield Part(title="What was not checked", blocks=[Table(["what", "why"], rows)])
    yield Part(
        title="What the policy asks", blocks=[Table(["rule", "of", "limit"], _asked(document))]
    )
    yield Part(title="How to repeat each check", blocks=_repeat(document))
    rows = [[e["kind"], e["fingerprint"], e["digest"]] for e in document["evidence"]]
    yield Part(title="Evidence", blocks=[Table(["bundle", "recipe", "content"], rows)])


def _checked(document: Record) -> Iterator[Block]:
    rows = [
        [c["outcome"], c["question"], c["found"], _passed(c), short(c["digest"])]
        for c in document["checked"]
    ]
    yield Table(["", "question", "found", "checks passed", "evidence"], rows)
    for kind, checks in document["checks"].items():
        rows = [[c["outcome"], c["name"], c["reason"]] for c in checks]
        yield Table(["", f"check of {kind}", "found"], rows, folded=f"all {len(rows)} of {kind}")


def _passed(found: Record) -> str:
    return "–" if found["checks"] is None else f"{found['passed']} of {found['checks']}"


def _asked(document: Record) -> list[list[str | None]]:
    named = {"AtLeast": "at least", "AtMost": "at most", "NoWorse": "no worse by",
             "LeastCost": "costs over the best at most"}  # fmt: skip
    return [
        [named.get(r["rule"], r["rule"]),
         str(r.get("metric", "each decision")) + (", every slice" if r.get("slices") else ""),
         number(r.get("value", r.get("margin", r.get("max_regret"))))]
        for r in document["policy"]
    ]  # fmt: skip


def _repeat(document: Record) -> list[Block]:
    said = "Words in capitals are folders of your own; a folder that is made must not exist yet."
    return [Says(said), Commands([r["command"] for r in document["repeat"]])]
