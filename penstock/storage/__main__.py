"""Copy published packages into folders: what a pod runs before its server.

``python -m penstock.storage s3://bucket/prefix/digits/NAME /mnt/models`` and as many pairs more as
there are; KServe gives its storage initializers these arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from penstock import storage


def main(arguments: Sequence[str]) -> int:
    """Return 0 when every folder holds its package, 1 after one sentence of why not."""
    if not arguments or len(arguments) % 2:
        print("usage: python -m penstock.storage URI DIR [URI DIR ...]", file=sys.stderr)
        return 2
    for uri, folder in zip(arguments[::2], arguments[1::2], strict=True):
        try:
            held = storage.fill(uri, Path(folder))
        except (OSError, ValueError) as e:
            print(f"penstock.storage: {storage.shown(e)}", file=sys.stderr)
            return 1
        print(f"{folder} holds {held.fingerprint}, {held.digest[7:19]}, from {storage.shown(uri)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
