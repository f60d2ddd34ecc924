"""Errors of a store: what to try again, what never helps, and a text without credentials."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import TypeVar

from penstock.storage.address import shown

T = TypeVar("T")

ATTEMPTS = 3
"""Times that one file or question is tried; in each, the store's client tries a few times."""

FIRST_S, LONGEST_S = 0.5, 8.0
"""Wait before the second attempt; it doubles, up to the longest."""

_HOPELESS = re.compile(
    r"ACCESS_DENIED|AccessDenied|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET"
    r"|NoSuchBucket|INVALID_SIGNATURE|MISSING_AUTHENTICATION_TOKEN|EXPIRED_TOKEN|ExpiredToken"
    r"|UNRECOGNIZED_CLIENT|INVALID_CLIENT_TOKEN_ID|HTTP (?:response code:|status) (?:301|40[013])\b"
    r"|Bucket '.*' not found|PERMISSION_DENIED|UNAUTHENTICATED"
    r"|INVALID_ARGUMENT|Permanent error|Could not create a OAuth2"
)
"""What stores and their clients say of a request that will be refused the next time too."""


class StoreError(OSError):
    """A store refuses: it will refuse again until somebody changes something."""


class Unreachable(StoreError):
    """A store did not answer, or only with errors of its own; it may the next time."""


def tried(act: Callable[[], T], *, what: str, pause: Callable[[float], None]) -> T:
    """Return what an act gives; try again, a bounded number of times, what may pass.

    Args:
        what: What is being done, for the error: ``s3://bucket/x could not be read``.
        pause: Waits; by the seconds it is given.

    Raises:
        FileNotFoundError: There is no such object.
        StoreError: The store refuses.
        Unreachable: It did not answer in any attempt.
    """
    wait_s = FIRST_S
    for left in reversed(range(ATTEMPTS)):
        try:
            return act()
        except FileNotFoundError:
            raise FileNotFoundError(shown(what)) from None
        except (OSError, ValueError) as e:
            # Not chained: what the client said is in our text, and there without credentials.
            if hopeless(e):
                raise refused(what, e) from None
            if not left:
                raise Unreachable(
                    f"{shown(what)}, {ATTEMPTS} times: {shown(e)}; see that the store is up and "
                    "its endpoint right, then run again: what arrived is kept."
                ) from None
        pause(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - so that many do not come back at once
        wait_s = min(2 * wait_s, LONGEST_S)
    raise AssertionError("unreachable: the last attempt returns or raises")


def hopeless(error: Exception) -> bool:
    """Return whether no retry will mend it: the store refuses, or this machine's disk does."""
    if isinstance(error, StoreError | ValueError):
        return not isinstance(error, Unreachable)
    of_this_machine = isinstance(error, OSError) and error.errno is not None
    passing = isinstance(error, ConnectionError | TimeoutError)
    return (of_this_machine and not passing) or _HOPELESS.search(str(error)) is not None


def refused(what: str, error: Exception) -> Exception:
    """Return the error that says what was refused, and what to look at."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, f"{shown(what)}: {shown(error.strerror)}")
    return StoreError(
        f"{shown(what)}: {shown(error)}; see bucket, region and endpoint, and that the credentials "
        "may do this: docs/how-to/choose-storage.md."
    )
