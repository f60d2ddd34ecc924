"""Write down what was built: each image's digest, size and bill of materials.

``python -m components.images.record --out FOLDER --base REF TARGET=NAME...``, after a build. The
names in ``images.json`` are by digest: what a profile or ``PENSTOCK_IMAGE_*`` pins.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components import images
from components.images import sbom

MEGABYTE = 1_000_000


def buildah(*words: str) -> str:
    """Return what buildah said.

    Raises:
        subprocess.CalledProcessError: It refused.
    """
    return subprocess.run(["buildah", *words], capture_output=True, text=True, check=True).stdout


def record(target: str, name: str, out: Path) -> dict[str, Any]:
    """Write an image's bill of materials and return what is to be known of it."""
    said = json.loads(buildah("inspect", "--type", "image", name))
    container = buildah("from", "--pull-never", name).strip()
    try:
        root = Path(buildah("mount", container).strip())
        bill = sbom.bill(root, name=name, locks=(images.ROOT / "requirements").glob("*.txt"))
        (out / f"{target}.cdx.json").write_text(bill + "\n", encoding="utf-8")
        size = sum(p.lstat().st_size for p in root.rglob("*"))
    finally:
        buildah("rm", container)
    return {
        "image": f"{name.rpartition(':')[0]}@{said['FromImageDigest']}",
        "tag": name,
        "id": f"sha256:{said['FromImageID']}",
        "layers": said["OCIv1"]["rootfs"]["diff_ids"],
        "bytes": size,
        "components": len(json.loads(bill)["components"]),
    }


def table(made: Mapping[str, Mapping[str, Any]]) -> str:
    """Return name, size and digest of each image, a line each."""
    lines = [
        f"{target:<11} {entry['bytes'] / MEGABYTE:>7,.0f} MB  {entry['image']}"
        for target, entry in made.items()
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Write everything, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("built", nargs="+", metavar="TARGET=NAME")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", required=True)
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    listed = given.out / "images.json"
    before = json.loads(listed.read_text()) if listed.exists() else {"images": {}}
    made = {
        target: record(target, name, given.out)
        for target, name in (built.split("=", 1) for built in given.built)
    }
    said = {"base": given.base, "images": {**before["images"], **made}}
    listed.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(table(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
