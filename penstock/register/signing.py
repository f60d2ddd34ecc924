"""Signing: put a signature of all its files into a package, by the key the environment names.

The format is OpenSSF's model signing: a Sigstore bundle of a DSSE envelope of an in-toto statement.
The signature lies in the package's folder and so goes wherever the package goes; neither the
manifest nor any digest knows of it, so a package may be signed again by another key.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from penstock.bundle import SIGNATURE, Bundle
from penstock.stage import Refused
from penstock.workload import Workload

KEY_VARIABLE = "PENSTOCK_SIGNING_KEY"
"""Environment variable: the file of the private key that signs packages."""

VERIFIER_VARIABLE = "PENSTOCK_SIGNED_BY"
"""Environment variable of servers: the file of the public key."""


def key_for(declared: Workload) -> Path | None:
    """Return the file of the signing key; None where there is none and nobody asks for one.

    Raises:
        Refused: The workload asks for signatures and a key is not named, or the file is not there.
    """
    named = os.environ.get(KEY_VARIABLE)
    if declared.endpoint.signed:
        for variable, what in ((KEY_VARIABLE, "private"), (VERIFIER_VARIABLE, "public")):
            if not os.environ.get(variable):
                raise Refused(
                    f"{declared.name} serves signed packages only, and {variable} is not set; "
                    f"name the file of the {what} key: see docs/decisions/0014."
                )
    if not named:
        return None
    if not Path(named).is_file():
        raise Refused(f"there is no key {named}; {KEY_VARIABLE} must name its file.")
    return Path(named)


def sign(package: Bundle, key: Path) -> bool:
    """Sign a package where it has no valid signature by this key; return whether it was done.

    A signature that only names the key, damaged or of other files, is replaced: every server
    refuses it.

    Args:
        key: PEM file of an elliptic curve's private key, without a password.

    Raises:
        Refused: The file holds no such key.
    """
    from cryptography.hazmat.primitives import serialization as forms  # noqa: PLC0415 - as below
    from model_signing import hashing, signing  # noqa: PLC0415 - a third of a second to import

    try:
        private = forms.load_pem_private_key(key.read_bytes(), None)
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
    except Exception as e:  # of keys it does not know, whatever the reading of one raises
        raise Refused(
            f"{key} is no private key to sign with: {e}. Make one: openssl ecparam -name "
            "prime256v1 -genkey -noout -out key.pem"
        ) from e
    public = private.public_key().public_bytes(
        forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo
    )
    if _signer(package) == hashlib.sha256(public).hexdigest() and _holds(package, public):
        return False
    part = package.path.with_name(f".part-{package.path.name}.sig")
    ignored = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    signer.set_hashing_config(ignored).sign(package.path, part)
    part.replace(package.path / SIGNATURE)
    return True


def accepted(package: Bundle) -> bool | None:
    """Return whether the key that servers are told of accepts a package's signature.

    None where the environment names no such key: nobody can tell then.
    """
    named = os.environ.get(VERIFIER_VARIABLE)
    return _valid(package, Path(named)) if named and Path(named).is_file() else None


def _valid(package: Bundle, public: Path) -> bool:
    """Return whether a package's signature is by this key and of the files that lie there."""
    from model_signing import hashing, verifying  # noqa: PLC0415 - as above

    wanted = hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    asked = verifying.Config().use_elliptic_key_verifier(public_key=public)
    try:
        asked.set_hashing_config(wanted).verify(package.path, package.path / SIGNATURE)
    except Exception:  # noqa: BLE001 - its exceptions share no base
        return False
    return True


def _holds(package: Bundle, public: bytes) -> bool:
    with tempfile.NamedTemporaryFile(suffix=".pub") as held:
        held.write(public)
        held.flush()
        return _valid(package, Path(held.name))


def _signer(package: Bundle) -> str | None:
    """Return the hash of the public key that a package's signature names; None without one."""
    try:
        held = json.loads((package.path / SIGNATURE).read_text(encoding="utf-8"))
        return str(held["verificationMaterial"]["publicKey"]["hint"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None
