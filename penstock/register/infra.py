"""Infra validation: the real server answers real requests before a package is registered."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from penstock.bundle import Bundle, Recipe, Summary, code_revision, write, write_json
from penstock.register.probe import PREDICTOR, READY_S, Answer, Seen, observe
from penstock.request import Contract
from penstock.verdict import Check, Outcome, Verdict

KIND = "infra-verdict"

REFUSED = "not serving version"
"""How the server begins the sentence that says why a package must not serve."""

ROUNDING = 1e-6
"""Of a probability that goes through JSON in fp32."""

Rows = list[tuple[int, list[float]]]
"""Of each row that was answered: the label and the probability of every class."""


def validate(
    package: Bundle,
    out: Path,
    *,
    now: datetime,
    command: Sequence[str] | None = None,
    ready_s: float = READY_S,
) -> Bundle:
    """Serve a package on loopback, ask it, end it; write the verdict as a bundle at ``out``.

    It is never reused from the store: what this machine could serve is asked of this machine.

    Args:
        command: What to start; the real server unless told.
        ready_s: How long to wait until it is ready.
    """
    contract = Contract.from_dict(package.json("serving.json"))
    golden = package.json("golden.json")

    def make(folder: Path) -> Summary:
        with tempfile.TemporaryDirectory(prefix="penstock-infra-") as scratch:
            log = Path(scratch)
            seen = observe(
                package.path, contract, golden, log, command=command or PREDICTOR, ready_s=ready_s
            )
        verdict = judge(contract, golden, seen)
        write_json(folder / "verdict.json", verdict.to_dict())
        return Summary(verdict.outcome, verdict.reason)

    recipe = Recipe(
        kind=KIND,
        workload=package.manifest["workload"],
        inputs={"package": package.fingerprint},
        settings={"digest": package.digest},
        code=code_revision(Path(__file__).parent),
    )
    return write(out, recipe, make=make, now=now)


def judge(contract: Contract, golden: Mapping[str, Any], seen: Seen) -> Verdict:
    """Return what was seen of a server, judged. Pure; what was not seen is an error.

    Args:
        golden: The package's ``golden.json``.
    """
    started = _started(seen)
    if started.outcome is not Outcome.PASS:
        return Verdict((started,))
    requests = len(golden["requests"])
    return Verdict(
        (
            started,
            _metadata(contract, seen.metadata),
            _golden("golden answers, v1", golden, lambda: _rows(seen.v1, v1_rows)),
            _golden("golden answers, v2", golden, lambda: _rows(seen.v2, v2_rows)),
            _golden(f"a batch of {requests}", golden, lambda: _rows([seen.batch], v2_rows)),
            _labels(contract, seen),
            _bad(seen.bad),
            _golden("after a bad request", golden, lambda: _rows([seen.after], v2_rows), first=1),
            _latency(seen.timed_ms),
            _ended(seen.exit_code),
        )
    )


def _started(seen: Seen) -> Check:
    name = "server ready"
    if seen.ready_s is None:
        refused = seen.said.startswith(REFUSED)
        outcome = Outcome.FAIL if refused else Outcome.ERROR
        why = seen.said or "it was not ready in time"
        if "No module named" in why:
            why += "; a machine that registers versions needs penstock[serve]"
        return Check(name=name, outcome=outcome, reason=why)
    return Check(
        name=name,
        outcome=Outcome.PASS,
        reason=f"after {seen.ready_s:.1f} s",
        value=round(seen.ready_s, 2),
    )


def _metadata(contract: Contract, answer: Answer | None) -> Check:
    name, wanted = "metadata", contract.names
    try:
        document = _document(answer)
        inputs = [tensor["name"] for tensor in document["inputs"]]
        outputs = [tensor["name"] for tensor in document["outputs"]]
    except (LookupError, TypeError, ValueError) as e:
        return Check(name=name, outcome=Outcome.ERROR, reason=f"cannot be read: {e}")
    right = inputs == wanted and {"label", "probability"} <= set(outputs)
    return Check(
        name=name,
        outcome=Outcome.PASS if right else Outcome.FAIL,
        reason=f"takes {', '.join(inputs)}; gives {', '.join(outputs)}",
    )


def _golden(
    name: str,
    golden: Mapping[str, Any],
    answered: Callable[[], Rows],
    *,
    first: int | None = None,
) -> Check:
    """Hold answers against the golden ones.

    When no logit moves by more than t, no probability moves by more than t / 2: its derivative by
    the logits is p (1 - p), at most 1/4, times a difference of two of them, at most 2 t.
    """
    from penstock.stats.metrics import probabilities  # noqa: PLC0415 - scipy: half a second

    requests, limit = golden["requests"][:first], golden["tolerance"] / 2 + ROUNDING
    if not requests:
        return Check(name=name, outcome=Outcome.ERROR, reason="the package has no golden requests")
    wanted_nk = probabilities(np.array([r["logits"] for r in requests]))
    try:
        came_nk = np.array([row for _, row in answered()], float)
        if came_nk.shape != wanted_nk.shape:
            raise ValueError(f"{came_nk.shape} probabilities came, {wanted_nk.shape} were wanted")
    except (LookupError, TypeError, ValueError) as e:
        return Check(name=name, outcome=Outcome.ERROR, reason=f"no answer to compare: {e}")
    apart = float(np.abs(came_nk - wanted_nk).max())
    if not np.isfinite(apart):
        return Check(name=name, outcome=Outcome.FAIL, reason="an answer is not a finite number")
    return Check(
        name=name,
        outcome=Outcome.PASS if apart <= limit else Outcome.FAIL,
        reason=f"{apart:.2g} apart at most in {len(requests)} rows, {limit:.2g} allowed",
        value=apart,
        limit=limit,
    )


def _labels(contract: Contract, seen: Seen) -> Check:
    """Ask that labels follow from probabilities, in whatever protocol and company a row comes."""
    name = "labels"
    try:
        ways = [_rows(seen.v1, v1_rows), _rows(seen.v2, v2_rows), _rows([seen.batch], v2_rows)]
        rows = [row for way in ways for row in way]
        wrong = [row for row in rows if not _follows(*row, threshold=contract.threshold)]
    except (LookupError, TypeError, ValueError) as e:
        return Check(name=name, outcome=Outcome.ERROR, reason=f"no answer to compare: {e}")
    if not rows:
        return Check(name=name, outcome=Outcome.ERROR, reason="no row was answered")
    if wrong:
        label, row = wrong[0]
        reason = f"{len(wrong)} of {len(rows)} do not follow: {label} came for {row}"
        return Check(name=name, outcome=Outcome.FAIL, reason=reason)
    one, two, batch = ([label for label, _ in way] for way in ways)
    if not one == two == batch:
        reason = f"v1 says {one}, v2 {two}, one batch {batch}"
        return Check(name=name, outcome=Outcome.FAIL, reason=reason)
    return Check(name=name, outcome=Outcome.PASS, reason=f"{len(one)} rows alike in v1, v2, batch")


def _follows(label: int, row: Sequence[float], *, threshold: float | None) -> bool:
    """Return whether a label is what the probabilities decide; on the edge both are."""
    if threshold is None:
        return 0 <= label < len(row) and row[label] >= max(row) - ROUNDING
    return label == int(row[1] >= threshold) or abs(row[1] - threshold) <= ROUNDING


def _bad(answer: Answer | None) -> Check:
    name = "bad request refused"
    if answer is None or not answer.status:
        return Check(name=name, outcome=Outcome.ERROR, reason="it was not asked, or no answer came")
    refused = answer.status == 400
    return Check(
        name=name,
        outcome=Outcome.PASS if refused else Outcome.FAIL,
        reason=f"status {answer.status}, 400 was wanted",
        value=answer.status,
        limit=400,
    )


def _latency(timed_ms: Sequence[float]) -> Check:
    """Say how long requests took here; how long they may take, the rollout judges under traffic."""
    name = "latency"
    if not timed_ms:
        return Check(name=name, outcome=Outcome.ERROR, reason="no request was answered in time")
    p50, p99 = (float(v) for v in np.percentile(timed_ms, [50, 99]))
    reason = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms of {len(timed_ms)} requests; not judged"
    return Check(name=name, outcome=Outcome.PASS, reason=reason, value=round(p99, 3))


def _ended(exit_code: int | None) -> Check:
    if exit_code is None:
        reason = "it still ran long after it was asked to end"
        return Check(name="ends when asked", outcome=Outcome.FAIL, reason=reason)
    return Check(
        name="ends when asked",
        outcome=Outcome.PASS if exit_code == 0 else Outcome.FAIL,
        reason=f"exit code {exit_code}",
        value=exit_code,
        limit=0,
    )


def _rows(answers: Sequence[Answer | None], read: Callable[[Any], Rows]) -> Rows:
    """Return the rows of several answers, in their order.

    Raises:
        ValueError: One did not come, or not with 200; also LookupError, TypeError: not an answer.
    """
    return [row for answer in answers for row in read(_document(answer))]


def v1_rows(document: Any) -> Rows:
    """Return the rows of a v1 answer."""
    return [(p["label"], p["probability"]) for p in document["predictions"]]


def v2_rows(document: Any) -> Rows:
    """Return the rows of a v2 answer."""
    outputs = {tensor["name"]: tensor for tensor in document["outputs"]}
    given = outputs["probability"]
    rows_nk = np.reshape(np.array(given["data"], float), given["shape"]).tolist()
    return list(zip(outputs["label"]["data"], rows_nk, strict=True))


def _document(answer: Answer | None) -> Any:
    """Return what was answered with 200.

    Raises:
        ValueError: Nothing was, or not with 200.
    """
    if answer is None:
        raise ValueError("it was not asked, since the server had stopped answering")
    if answer.status != 200:
        raise ValueError(f"status {answer.status}: {answer.document}")
    return answer.document
