"""What tests of the pipelines share: the profiles in the repository, images with digests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.profile import Profile
from pipelines.steps import GROUPS

PROFILES = Path(__file__).parents[2] / "pipelines" / "profiles"

IMAGES = {
    group: f"registry.example.com/penstock-python-{group}@sha256:{digit * 64}"
    for group, digit in zip(GROUPS, "0123456789", strict=False)
}


def pinned(profile: Profile) -> Profile:
    """Return a profile whose images have digests, as CI names those that it has built."""
    return replace(profile, images=IMAGES)
