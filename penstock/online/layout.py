"""Where a feature service's values lie online, and what to do when they are old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from penstock.workload import Freshness


class OnlineError(RuntimeError):
    """Online features could not be looked up; the text says why and what to do."""


class UnfitKey(OnlineError):
    """The caller's entity has no key that could be looked up; the store was not asked."""


class StoreOut(OnlineError):
    """The store did not answer in time or cannot be read; whoever asks next meets the same."""


@dataclass(frozen=True, kw_only=True)
class KeyColumn:
    """One join key of a view."""

    name: str
    """As the store knows it."""

    asked: str
    """As the caller names it."""

    kind: str
    """Feast's name of its type: ``INT64``, ``STRING``."""


@dataclass(frozen=True, kw_only=True)
class ViewLayout:
    """One feature view of the service."""

    name: str
    keys: tuple[KeyColumn, ...]
    """In the order of their names, as they are stored."""

    features: tuple[str, ...]
    fields: tuple[str, ...]
    """Of each feature, its field in a Redis hash, in hexadecimal."""

    ttl_s: float | None
    """Age at which a value is no longer one; None for never."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a look-up needs to know of a feature service; travels with the snapshot."""

    project: str
    service: str
    definitions: str
    """Hash of the feature definitions that the store was filled by."""

    views: tuple[ViewLayout, ...]
    freshness: tuple[Freshness, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        held = asdict(self)
        for limit in held["freshness"]:
            limit["max_staleness"] = limit["max_staleness"].total_seconds()
        return held

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Layout:
        """Return what :meth:`to_dict` gave.

        Raises:
            OnlineError: A name is missing or unknown.
        """
        try:
            return cls(
                project=held["project"],
                service=held["service"],
                definitions=held["definitions"],
                views=tuple(
                    ViewLayout(
                        name=view["name"],
                        keys=tuple(KeyColumn(**key) for key in view["keys"]),
                        features=tuple(view["features"]),
                        fields=tuple(view["fields"]),
                        ttl_s=view["ttl_s"],
                    )
                    for view in held["views"]
                ),
                freshness=tuple(_freshness(limit) for limit in held["freshness"]),
            )
        except (KeyError, TypeError) as e:
            raise OnlineError(
                f"this is no layout of online features ({type(e).__name__}: {e}); read online.json "
                "of a snapshot."
            ) from e


def _freshness(held: Mapping[str, Any]) -> Freshness:
    seconds, channels = held["max_staleness"], held["channels"]
    plain: dict[str, Any] = dict(held)
    plain |= {"max_staleness": timedelta(seconds=seconds), "channels": tuple(channels)}
    return Freshness(**plain)
