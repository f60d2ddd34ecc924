"""Ask a served model its golden rows and compare: ends with 0 when every answer is as recorded.

``python3 check.py http://127.0.0.1:8080``: needs nothing but Python, so it runs inside Triton's
image, as the startup probe of a pod. It lies beside ``golden.json``.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT_S = 10


def main(argv: list[str]) -> int:
    """Check the model of the ``golden.json`` that lies beside this file."""
    base = argv[1] if len(argv) > 1 else "http://127.0.0.1:8080"
    golden = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
    try:
        wrong = differences(base.rstrip("/"), golden)
    except (OSError, ValueError, KeyError, IndexError) as e:
        print(f"{golden['model']} gave no answer to compare: {e!r}", file=sys.stderr)
        return 1
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def differences(base: str, golden: dict[str, Any]) -> list[str]:
    """Return what is answered otherwise than recorded, each row asked alone.

    Raises:
        OSError: Nothing answers there, or not with 200.
        ValueError, KeyError, IndexError: What answers is no v2 response.
    """
    found: list[str] = []
    for number, row in enumerate(golden["rows"], start=1):
        answer = _asked(base, golden, row["input"])
        # Not <=: an answer that is not a number is wrong too.
        apart = [abs(a - b) for a, b in zip(answer, row["output"])]  # noqa: B905 - of Python 3.8
        right = len(answer) == len(row["output"]) and all(d <= golden["tolerance"] for d in apart)
        if not right:
            found.append(f"golden row {number} of {golden['model']}: {answer}, not {row['output']}")
    return found


def _asked(base: str, golden: dict[str, Any], data: list[float]) -> list[float]:
    given, made = golden["input"], golden["output"]
    tensor = {"name": given["name"], "shape": [1, *given["dims"]], "datatype": "FP32", "data": data}
    body = {"inputs": [tensor], "outputs": [{"name": made["name"]}]}
    request = urllib.request.Request(  # noqa: S310 - the address is ours
        f"{base}/v2/models/{golden['model']}/infer",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - the same
        return [float(v) for v in json.load(response)["outputs"][0]["data"]]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
