"""Storage: whole bundles in a folder or an object store, published once and fetched verified."""

from penstock.storage.address import address, is_uri, shown
from penstock.storage.errors import StoreError, Unreachable
from penstock.storage.fetching import cache_folder, fetch, fill, local, opened
from penstock.storage.moving import Heard, Moved
from penstock.storage.publishing import name_of, packages, publish, publish_signature

__all__ = [
    "Heard",
    "Moved",
    "StoreError",
    "Unreachable",
    "address",
    "cache_folder",
    "fetch",
    "fill",
    "is_uri",
    "local",
    "name_of",
    "opened",
    "packages",
    "publish",
    "publish_signature",
    "shown",
]
