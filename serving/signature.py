"""Signature: whether a package is what the holder of a key has signed, asked before it is read.

The format is OpenSSF's model signing, so that anybody can ask the same without Penstock:
``model_signing verify key --public_key KEY --signature DIR/package.sig DIR``.
"""

from __future__ import annotations

from pathlib import Path

from penstock.bundle import SIGNATURE

KEY_VARIABLE = "PENSTOCK_SIGNED_BY"
"""Environment variable: the file of the public key by which packages must be signed."""


class NotSigned(ValueError):
    """A package has no valid signature by the key that is asked for; the text says why."""


def verify(package: Path, key: Path) -> None:
    """Check every file of a package against its signature; one more is one too many.

    Args:
        key: PEM file of an elliptic curve's public key.

    Raises:
        NotSigned: There is no signature, it is another key's, or a file was altered, added or lost.
    """
    if not key.is_file():
        raise NotSigned(f"there is no public key {key}; {KEY_VARIABLE} must name its file.")
    if not (package / SIGNATURE).is_file():
        raise NotSigned(
            f"{package} has no signature, and one by {key} is asked for; register the model again "
            "with PENSTOCK_SIGNING_KEY set to the private key's file."
        )
    from model_signing import hashing, verifying  # noqa: PLC0415 - a third of a second to import

    # Its own settings would be read from the signature, and leave out files that git knows.
    wanted = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=key).set_hashing_config(
            wanted
        ).verify(package, package / SIGNATURE)
    except Exception as e:  # its exceptions share no base
        raise NotSigned(
            f"{package} is not what the holder of {key} signed: {str(e) or repr(e)}. Fetch the "
            "package that was registered, or name the key it was signed by."
        ) from e
