"""Publish: put a bundle where other machines find it, named by what it contains.

Its files go first and its manifest last, so what was cut off is never a bundle. The folder's name
is made of the bundle's digest and its manifest's seal: whoever publishes the same bundle writes the
same bytes to the same place, and nothing is ever published over another.
"""

from __future__ import annotations

import os
from pathlib import Path

from penstock.bundle import MANIFEST, SIGNATURE, Bundle, BundleError
from penstock.storage.address import address
from penstock.storage.moving import Heard, Meter, together
from penstock.storage.names import MANIFEST_BYTES, name_of, sizes
from penstock.storage.store import Store

VARIABLE = "PENSTOCK_PACKAGES"
"""Environment variable: where registered packages are published."""

SIGNATURE_BYTES = 1 << 20


def packages() -> str | None:
    """Return where packages are published, None where they stay in the registry alone.

    Raises:
        ValueError: ``PENSTOCK_PACKAGES`` is no address, or has credentials in it.
    """
    named = os.environ.get(VARIABLE)
    try:
        return address(named) if named else None
    except ValueError as e:
        raise ValueError(f"{VARIABLE}: {e}") from None


def publish(bundle: Bundle, to: str | Path | Store, *, heard: Heard | None = None) -> str:
    """Put a verified bundle below an address; return the address of its folder.

    It can be repeated, and by several at once: what is there is not sent again. It returns when
    everything was read back and was right.

    Args:
        to: A folder, ``s3://bucket/prefix`` or ``gs://bucket/prefix``.
        heard: Is told how far it is.

    Raises:
        BundleError: What lies there, under this very name, holds other bytes.
        StoreError: The store refuses, or does not answer.
    """
    root = to if isinstance(to, Store) else Store.at(to)
    store = root.below(bundle.manifest["workload"], name_of(bundle.manifest))
    text = (bundle.path / MANIFEST).read_bytes()
    there = store.read(MANIFEST, at_most=MANIFEST_BYTES)
    if there is None:
        _send(bundle, store, heard)
    elif there != text:
        raise _other(store, MANIFEST)
    if (bundle.path / SIGNATURE).exists():
        publish_signature(bundle, store)
    _read_back(bundle, store)
    if there is None:
        store.put(bundle.path / MANIFEST, MANIFEST)
    return str(store)


def publish_signature(bundle: Bundle, to: str | Store) -> None:
    """Put a bundle's signature beside its files, in the place of one that is there.

    Args:
        to: The folder that the bundle was published in.

    Raises:
        StoreError: The store refuses, or does not answer.
    """
    store, signature = to if isinstance(to, Store) else Store.at(to), bundle.path / SIGNATURE
    if store.read(SIGNATURE, at_most=SIGNATURE_BYTES) != signature.read_bytes():
        store.put(signature, SIGNATURE)


def _send(bundle: Bundle, store: Store, heard: Heard | None) -> None:
    """Send the files that are not there; one of another size was cut off."""
    wanted, there = sizes(bundle.manifest), store.sizes()
    meter = Meter(sum(wanted.values()), heard)

    def send(name: str) -> None:
        if there.get(name) == wanted[name]:
            meter.add(wanted[name])
        else:
            store.put(bundle.path / name, name, moved=meter.add)

    together(send, sorted(wanted, key=lambda name: -wanted[name]))


def _read_back(bundle: Bundle, store: Store) -> None:
    """Refuse what is there otherwise than the bundle's manifest says."""
    files = bundle.manifest["files"]

    def check(name: str) -> None:
        try:
            found = store.hash(name)
        except FileNotFoundError:
            found = ""
        if found != files[name]["sha256"]:
            raise _other(store, name)

    together(check, files)


def _other(store: Store, name: str) -> BundleError:
    return BundleError(
        f"{store}/{name} is not what was published under this name: it was altered, lost or cut "
        "off. See who did it, remove that folder, and publish again."
    )
