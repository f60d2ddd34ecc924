"""What the rest of Penstock asks of a model registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from penstock.bundle import Bundle


class Registry(Protocol):
    """Keeps numbered versions of a workload's packages, and movable aliases."""

    def add(self, workload: str, package: Bundle, *, experiment: str) -> int:
        """Keep a package as a new version and return its number."""
        ...

    def find(self, workload: str, *, fingerprint: str) -> list[int]:
        """Return the versions that hold the package of this fingerprint, oldest first."""
        ...

    def package(self, workload: str, version: int) -> Path:
        """Return the folder of a version's package."""
        ...

    def point(self, workload: str, aliases: Mapping[str, int | None]) -> None:
        """Let each alias name its version, or nothing."""
        ...
