"""Storage: whole bundles in a folder or an object store, published once and fetched verified."""

from penstock.storage.address import address, is_uri, shown
from penstock.storage.errors import StoreError, Unreachable
from penstock.storage.fetch import cache_folder, fetch, local, opened
from penstock.storage.moving import Heard, Moved
from penstock.storage.publish import name_of, packages, publish, publish_signature

__all__ = [
    "Heard",
    "Moved",
    "StoreError",
    "Unreachable",
    "address",
    "cache_folder",
    "fetch",
    "is_uri",
    "local",
    "name_of",
    "opened",
    "packages",
    "publish",
    "publish_signature",
    "shown",
]
