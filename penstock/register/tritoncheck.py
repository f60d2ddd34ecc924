"""Ask a served model its golden rows and compare: ends with 0 when every answer is as recorded.

Each row is asked alone, and then all together. It ends with 3 where nobody listens, else with 1.

``python3 check.py http://127.0.0.1:8080``: needs nothing but Python, so it runs inside Triton's
image, as the startup probe of a pod. It lies beside ``golden.json``.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT_S = 10
NOBODY = 3
"""How it ends where nobody listens yet, so that whoever starts a server can wait."""

SAID = 1000
"""Characters of a refusal that are printed."""


def main(argv: list[str]) -> int:
    """Check the model of the ``golden.json`` that lies beside this file."""
    base = argv[1] if len(argv) > 1 else "http://127.0.0.1:8080"
    golden = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
    try:
        wrong = differences(base.rstrip("/"), golden)
    except urllib.error.HTTPError as e:
        print(f"{golden['model']} was refused with {e.code}: {_said(e)}", file=sys.stderr)
        return 1
    except (OSError, ValueError, KeyError, IndexError) as e:
        print(f"{golden['model']} gave no answer to compare: {e!r}", file=sys.stderr)
        return NOBODY if isinstance(getattr(e, "reason", None), ConnectionRefusedError) else 1
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def differences(base: str, golden: dict[str, Any]) -> list[str]:
    """Return what is answered otherwise than recorded: each row alone, and rows in one batch.

    Raises:
        OSError: Nothing answers there, or not with 200.
        ValueError, KeyError, IndexError: What answers is no v2 response.
    """
    found: list[str] = []
    rows, most = golden["rows"], golden["batch"]
    for together in [*([row] for row in rows), *([rows[:most]] if most > 1 else [])]:
        answers = _asked(base, golden, together)
        how = f" in a batch of {len(together)}" if len(together) > 1 else ""
        for row, answer in zip(together, answers):  # noqa: B905 - of Python 3.8
            if not _right(answer, row["output"], golden["tolerance"]):
                number = rows.index(row) + 1
                said = f"{answer}, not {row['output']}"
                found.append(f"golden row {number} of {golden['model']}{how}: {said}")
    return found


def _right(answer: list[float], wanted: list[float], tolerance: float) -> bool:
    # Not <=: an answer that is not a number is wrong too.
    apart = [abs(a - b) for a, b in zip(answer, wanted)]  # noqa: B905 - of Python 3.8
    return len(answer) == len(wanted) and all(d <= tolerance for d in apart)


def _asked(base: str, golden: dict[str, Any], rows: list[dict[str, Any]]) -> list[list[float]]:
    """Return the answers to rows that are asked in one request."""
    given, made = golden["input"], golden["output"]
    data = [value for row in rows for value in row["input"]]
    shape = [len(rows), *given["dims"]]
    tensor = {"name": given["name"], "shape": shape, "datatype": "FP32", "data": data}
    body = {"inputs": [tensor], "outputs": [{"name": made["name"]}]}
    request = urllib.request.Request(  # noqa: S310 - the address is ours
        f"{base}/v2/models/{golden['model']}/infer",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - the same
        flat = [float(v) for v in json.load(response)["outputs"][0]["data"]]
    # What is too long or too short stays so in the last row, where it is found.
    size = len(rows[0]["output"])
    starts = [n * size for n in range(len(rows))]
    return [flat[n : n + size] for n in starts[:-1]] + [flat[starts[-1] :]]


def _said(refusal: urllib.error.HTTPError) -> str:
    """Return the server's own sentence; it is what tells a missing model from a wrong input."""
    try:
        text = refusal.read(SAID).decode("utf-8", "replace").strip()
    except OSError as e:
        return f"{refusal.reason} (and no more: {e!r})"
    return text or refusal.reason


if __name__ == "__main__":
    sys.exit(main(sys.argv))
