"""What is in an image, as a CycloneDX document: Python packages, Debian packages, nothing guessed.

Packages are those that lie in the image. Hashes are the lock's, and one of them is that of the
wheel that was installed: they stand at what is distributed under the name, not at the component.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from components.images import layers, slim

STATUS = "var/lib/dpkg/status"
SITES = "venv/lib/python*/site-packages"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
"""The images' own time: what is listed decides the document, not when it was listed."""


def bill(root: Path, *, name: str, locks: Iterable[Path]) -> str:
    """Return the document of an image whose files are at ``root``.

    Args:
        locks: Requirement files whose hashes are told.

    Raises:
        ValueError: The document does not keep to CycloneDX's schema.
    """
    pinned: dict[str, str] = {}
    for lock in locks:
        pinned |= layers.parse(lock.read_text(encoding="utf-8"))
    found = sorted([*python(root, pinned), *debian(root)], key=lambda c: str(c.purl))
    of = Component(name=name, type=ComponentType.CONTAINER, bom_ref="image")
    told = "\n".join(str(c.purl) for c in found)
    bom = Bom(
        components=found,
        metadata=BomMetaData(component=of, timestamp=EPOCH, tools=[]),
        serial_number=uuid5(NAMESPACE_URL, f"{name}\n{told}"),
    )
    bom.register_dependency(of, found)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"the bill of {name} is not CycloneDX 1.6: {problem}")
    return text


def python(root: Path, pinned: Mapping[str, str]) -> Iterator[Component]:
    """Yield the Python packages of an image.

    Args:
        pinned: The lock's lines of each package, by name.
    """
    for told in root.glob(f"{SITES}/*.dist-info/METADATA"):
        said = HeaderParser().parsestr(told.read_text(encoding="utf-8", errors="replace"))
        name = re.sub(r"[-_.]+", "-", said["Name"]).lower()
        purl = PackageURL("pypi", name=name, version=said["Version"])
        line = pinned.get(name, "")
        hashes = re.findall(r"--hash=sha256:(\w+)", line) if _same(line, said["Version"]) else []
        yield _component(purl, _license(said), hashes)


def debian(root: Path) -> Iterator[Component]:
    """Yield the Debian packages of an image."""
    for name, said in slim.installed((root / STATUS).read_text(encoding="utf-8")).items():
        where = {"arch": said["Architecture"], "distro": "debian-12"}
        purl = PackageURL("deb", "debian", name, said["Version"], where)
        yield _component(purl, None, [])


def _same(line: str, version: str) -> bool:
    return line.partition("==")[2].split()[:1] == [version]


def _license(said: Any) -> str | None:
    """Return what a package calls its licence, where that is an expression and not a text."""
    expression = said["License-Expression"] or said["License"]
    return expression if expression and len(expression) < 80 and "\n" not in expression else None


def _component(purl: PackageURL, licence: str | None, hashes: list[str]) -> Component:
    distributed = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(str(purl)),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=h) for h in hashes],
    )
    return Component(
        name=purl.name,
        version=purl.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        purl=purl,
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
        external_references=[distributed] if hashes else [],
    )
