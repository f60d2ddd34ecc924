"""Laws of a bill of materials: all that lies in an image is in it, and the same each time."""

import json
from pathlib import Path

from components.images import sbom
from tests.images.test_slim import status

LOCK = (
    "numpy==2.3.5 \\\n    --hash=sha256:"
    + "a" * 64
    + "\nother==1 \\\n    --hash=sha256:"
    + "b" * 64
)


def image(root: Path, *packages: tuple[str, str]) -> Path:
    """Return the files of an image with these Python packages and two of Debian."""
    site = root / "venv/lib/python3.11/site-packages"
    for name, version in packages:
        (site / f"{name}-{version}.dist-info").mkdir(parents=True)
        (site / f"{name}-{version}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: MIT\n\n."
        )
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / sbom.STATUS).write_text(status({"libc6": [], "dash": ["libc6"]}))
    return root


def bill(root: Path) -> str:
    """Return the bill of an image, with the lock beside it."""
    (root / "lock.txt").write_text(LOCK)
    return sbom.bill(root, name="penstock-python-data:1", locks=[root / "lock.txt"])


def test_everything_that_lies_there_is_in_it(tmp_path: Path):
    said = json.loads(bill(image(tmp_path, ("numpy", "2.3.5"), ("Other_Thing", "1.0"))))
    assert [c["purl"] for c in said["components"]] == [
        "pkg:deb/debian/dash@1-dash?arch=amd64&distro=debian-12",
        "pkg:deb/debian/libc6@1-libc6?arch=amd64&distro=debian-12",
        "pkg:pypi/numpy@2.3.5",
        "pkg:pypi/other-thing@1.0",
    ]
    assert said["metadata"]["component"]["name"] == "penstock-python-data:1"


def test_hashes_are_those_of_the_version_that_lies_there(tmp_path: Path):
    """A lock that moved on since says nothing of an older package."""
    said = json.loads(bill(image(tmp_path, ("numpy", "2.3.5"), ("other", "0.9"))))
    told = {c["name"]: c.get("externalReferences", []) for c in said["components"]}
    assert told["numpy"][0]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert told["other"] == []


def test_the_same_image_has_the_same_bill(tmp_path: Path):
    found = ("numpy", "2.3.5"), ("other", "1")
    one, two = image(tmp_path / "a", *found), image(tmp_path / "b", *reversed(found))
    assert bill(one) == bill(two)
