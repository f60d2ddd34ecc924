"""The model card as a page, made of ``card.json`` alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock.report import quality
from penstock.report.documents import (
    Block,
    Commands,
    Facts,
    Listed,
    Page,
    Part,
    Says,
    Table,
    estimate,
    lasting,
    number,
    person,
    rehearsed,
)

Record = Mapping[str, Any]


def card(document: Record) -> Page:
    """Return the page of a card, the gate's verdict first."""
    verdict = document["verdict"]
    return Page(
        kicker=f"Model card of {document['workload']}, owned by {document['owner']}",
        title=f"{document['title']}: gate {verdict['outcome']}",
        outcome=verdict["outcome"],
        reason=verdict["reason"],
        warning=rehearsed(document["rehearsal"]),
        parts=list(_parts(document)),
    )


def _parts(card: Record) -> Iterator[Part]:
    about = card["about"]
    yield Part(title="What it is for", blocks=_use(card))
    yield Part(title="Not for", blocks=[Listed(about["out_of_scope"])])
    if card["model_risk"] is not None:
        yield Part(title="For the model-risk reader", blocks=[_model_risk(card)])
    yield Part(title="Which version", blocks=[_version(card)])
    yield Part(title="Data", blocks=_data(card))
    yield Part(title="How good it is", blocks=list(quality.metrics(card)))
    yield Part(title="For each slice", blocks=list(quality.slices(card)))
    yield Part(title="Fairness", blocks=list(quality.fairness(card)))
    yield Part(title="Are its probabilities what happens?", blocks=list(quality.calibration(card)))
    yield Part(title="Behaviour", blocks=[quality.behaviours(card)])
    yield Part(title="Costs and threshold", blocks=[quality.costs(card)])
    yield Part(title="From the network to the graph that serves", blocks=list(quality.graph(card)))
    yield Part(title="What it needs", blocks=list(quality.resources(card)))
    yield Part(title="What a request must hold", blocks=_request(card))
    yield Part(title="Assumptions", blocks=[Listed(about["assumptions"])])
    yield Part(title="Limits", blocks=[Listed(about["limitations"])])
    yield Part(title="Whom it may hurt", blocks=[_ethical(about)])
    yield Part(title="Checks", blocks=list(_checks(card)))
    yield Part(title="How to make it again", blocks=_again(card))


def _use(card: Record) -> list[Block]:
    decides = card["decides"]
    about = card["about"]
    how = {"person": "a person lets a version forward", "automatic": "evidence lets it forward"}
    kept = f"{lasting(card['retention_days'])} after it was retired"
    return [
        Says(about["purpose"]),
        Says(about["methodology"]),
        Facts(
            [
                ("owner", card["owner"]),
                ("decides", f"{decides['label']}, one of {decides['classes']} classes"),
                ("judged by", decides["metric"]),
                ("approval", how.get(card["approval"], card["approval"])),
                ("record kept for", kept),
            ]
        ),
    ]


def _model_risk(card: Record) -> Block:
    rows = [[item["heading"], _told(card, item["evidence"])] for item in card["model_risk"]]
    return Table(["heading", "evidence in this card"], rows)


def _told(card: Record, names: list[str]) -> str | None:
    """Return what the named parts of a card say, where it is short; else where to read it."""
    said = [text for name in names if (text := _told_one(card, name))]
    return "; ".join(said) or None


def _told_one(card: Record, name: str) -> str:
    value: Any = card
    for part in name.split("."):
        value = value[part]
    if name == "scores.fairness":
        pairs = [(f["attribute"], estimate(f["adverse_impact_ratio"])) for f in value]
        return "; ".join(f"{attribute}: {found}" for attribute, found in pairs if found)
    if name == "approval":
        return {"person": "highest: a person approves every version"}.get(value, str(value))
    words = {
        "scores.metrics": "below, How good it is",
        "scores.slices": "below, For each slice",
        "behaviours": "below, Behaviour",
    }
    if not value:
        return ""
    if isinstance(value, str):
        return value
    return words.get(name) or "; ".join(map(str, value))


def _version(card: Record) -> Block:
    version = card["version"]
    code: Record = version["code"] or {}
    shape: Record = version["architecture"] or {}
    environment: Record = version["environment"] or {}
    return Facts(
        [
            ("graph that serves", version["model"]),
            ("network", shape.get("shapes")),
            ("trained values", number(shape.get("values"))),
            ("code", code.get("git") or code.get("sources")),
            ("seed", number(version["seed"])),
            ("image", version["image"] or "none: the steps ran as processes"),
            ("libraries locked as", environment.get("lock")),
            ("trained by", person(version["trained_by"])),
        ]
    )


def _data(card: Record) -> list[Block]:
    data = card["data"]
    rows: Record = data["rows"] or {}
    newest: Mapping[str, str] = data["newest"] or {}
    recorded = "a recording: its age counts from when it was taken" if data["recorded"] else "live"
    pairs = [
        ("snapshot", data["snapshot"]),
        ("content", data["digest"]),
        ("training rows", number(rows.get("train"))),
        ("holdout rows", number(rows.get("holdout"))),
        ("taken", data["as_of"]),
        *((f"newest of {view}", at) for view, at in newest.items()),
        ("label known after", number(data["label_delay_days"], unit="days")),
        ("kind", recorded),
        ("feature service", data["service"]),
        ("feature definitions", data["definitions"]),
        ("looked up alike in serving", number(data["online_compared"], unit="entities")),
    ]
    hashes: Mapping[str, str] = data["features"] or {}
    views: Mapping[str, list[str]] = data["views"] or {}
    names = [(view, name) for view, held in views.items() for name in held]
    return [
        Facts(pairs),
        Table(["view", "feature"], names, folded=f"all {len(names)} features"),
        Table(["definition", "hash"], list(hashes.items()), folded="the hash of each definition"),
    ]


def _request(card: Record) -> list[Block]:
    asked = card["constraints"]
    rows = [
        [c["name"], c["dtype"], _range(c), "yes" if c["nullable"] else "no"]
        for c in asked["columns"]
    ]
    stale = [
        [f["feature"], number(f["max_staleness"], unit="s"), f["on_stale"].replace("_", " ")]
        for f in asked["freshness"]
    ]
    blocks: list[Block] = [
        Says("card.json has this under constraints, for machines."),
        Table(["column", "type", "values", "may be missing"], rows),
    ]
    if stale:
        blocks.append(Table(["feature", "may be as old as", "when it is older"], stale))
    return blocks


def _range(column: Record) -> str:
    if column["among"]:
        return "one of " + ", ".join(map(str, column["among"]))
    low, high = number(column["low"]), number(column["high"])
    if low is None and high is None:
        between = "any"
    elif high is None:
        between = f"at least {low}"
    else:
        between = f"at most {high}" if low is None else f"{low} to {high}"
    return f"{column['length']} values, each {between}" if column["length"] else between


def _ethical(about: Record) -> Block:
    return Says(about["ethical"]) if about["ethical"] else Facts([("ethical notes", None)])


def _checks(card: Record) -> Iterator[Block]:
    for kind, verdict in card["verdicts"].items():
        checks = verdict["checks"]
        rows = [[c["outcome"], c["name"], c["reason"]] for c in checks]
        bad = [row for row in rows if row[0] != "pass"]
        yield Facts([(kind, verdict["outcome"])])
        if bad:
            yield Table(["", "check", "found"], bad)
        folded = f"all {len(rows)} checks of {kind}, {len(bad)} not passed"
        yield Table(["", "check", "found"], rows, folded=folded)


def _again(card: Record) -> list[Block]:
    certificate = card["training"]["certificate"] or {}
    twice = None
    if certificate:
        what = "equal bits" if certificate.get("holds") else "different bits"
        twice = f"{certificate.get('steps')} steps on {certificate.get('device')}: {what}"
    rows = [[e["kind"], e["fingerprint"], e["digest"]] for e in card["evidence"]]
    return [
        Facts([("trained twice", twice)]),
        Commands(
            [f"penstock lineage show {card['workload']} VERSION",
             f"penstock reproduce {card['workload']} VERSION"]
        ),
        Table(["made from", "recipe", "content"], rows),
    ]  # fmt: skip
