"""Laws of addresses: one way to write each, no credentials in any, none in what is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import storage
from penstock.storage.address import HIDDEN
from penstock.storage.backends import arrow
from penstock.storage.store import Store

SECRET = "wJalrXUtnFEMI-K7MDENG"

letters = "abcdefghijklmnopqrstuvwxyz0123456789-_.+/=@:?&%"
secrets = st.text("abcdefghijklmnopqrstuvwxyzABCDEFG0123456789+=", min_size=8, max_size=30)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b c/", "s3://bucket/a/b c"),
        ("gs://my-bucket_1.x/a", "gs://my-bucket_1.x/a"),
        ("/packages/", "/packages"),
        ("file:///packages", "/packages"),
    ],
)
def test_each_address_is_written_in_one_way(given: str, wanted: str):
    """Two ways to write a place are one place in the ledger."""
    assert storage.address(given) == wanted
    assert storage.address(wanted) == wanted
    assert storage.is_uri(wanted) == ("://" in wanted)


def test_a_path_of_here_is_a_path_of_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The ledger is read from other folders."""
    monkeypatch.chdir(tmp_path)
    assert storage.address("packages") == str(tmp_path / "packages")


@pytest.mark.parametrize(
    "text",
    ["", "ftp://host/a", "https://bucket.example.com/a", "s3://", "s3:///a", "s3://b", "S3://bucket/a",
     "s3://Bucket/a", "s3://bucket/a//b", "s3://bucket/../other", "s3://bucket/./a", "file://host/a",
     "memory://a", "s3://bucket/a\nb"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_what_would_be(text: str):
    """Before anything is made that could not be published."""
    with pytest.raises(ValueError, match=r"s3://bucket/prefix|names no folder"):
        storage.address(text)


@given(key=secrets, secret=secrets, scheme=st.sampled_from(["s3", "gs"]))
def test_credentials_in_an_address_are_refused_and_not_repeated(key: str, secret: str, scheme: str):
    """Neither before the bucket nor in a query; the error shows neither."""
    for text in (
        f"{scheme}://{key}:{secret}@bucket/a",
        f"{scheme}://{secret}@bucket/a",
        f"{scheme}://bucket/a?X-Amz-Signature={secret}&X-Amz-Credential={key}",
        f"{scheme}://bucket/a#{secret}",
        f"ftp://{key}:{secret}@host/a?token={secret}",
    ):
        with pytest.raises(ValueError) as refused:  # noqa: PT011 - what it must not say is the law
            storage.address(text)
        assert key not in str(refused.value)
        assert secret not in str(refused.value)


def test_what_the_environment_names_is_checked_too(monkeypatch: pytest.MonkeyPatch):
    """``PENSTOCK_PACKAGES`` by its name; an endpoint with credentials, which clients would show."""
    monkeypatch.delenv("PENSTOCK_PACKAGES", raising=False)
    assert storage.packages() is None
    monkeypatch.setenv("PENSTOCK_PACKAGES", "s3://bucket/a/")
    assert storage.packages() == "s3://bucket/a"
    monkeypatch.setenv("PENSTOCK_PACKAGES", f"s3://key:{SECRET}@bucket/a")
    with pytest.raises(ValueError, match="PENSTOCK_PACKAGES: an address s3://") as refused:
        storage.packages()
    assert SECRET not in str(refused.value)
    for variable, scheme in (("AWS_ENDPOINT_URL", "s3"), ("STORAGE_EMULATOR_HOST", "gs")):
        for url in (f"https://key:{SECRET}@host:9000", "https://", f"http://host?k={SECRET}"):
            monkeypatch.setenv(variable, url)
            with pytest.raises(ValueError, match=variable) as refused:
                arrow(scheme)
            assert SECRET not in str(refused.value)


@given(value=secrets, before=st.text(letters, max_size=20), after=st.text(letters, max_size=20))
def test_a_text_shows_no_secret_of_the_environment(value: str, before: str, after: str):
    """Wherever it stands, whichever it is."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        with pytest.MonkeyPatch.context() as patch:
            for other in [n for n in os.environ if n.startswith("AWS_")]:
                patch.delenv(other)
            patch.setenv(name, value)
            assert value not in storage.shown(f"{before} {value} {after}")


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://b.example.com/a?X-Amz-Credential=x&X-Amz-Signature={SECRET} failed",
        f"s3://key:{SECRET}@bucket/a could not be read",
        f"header Authorization: Bearer {SECRET}, refused",
        f"AWS4-HMAC-SHA256 Credential={SECRET}/20260105/us-east-1/s3/aws4_request",
        f"x-amz-security-token: {SECRET}",
    ],
)
def test_a_text_shows_no_credential_that_nobody_named(text: str):
    """From a file or a role they are in no variable; what they look like is known."""
    assert SECRET not in storage.shown(text)
    assert HIDDEN in storage.shown(text)


def test_a_text_without_credentials_is_left_as_it_is():
    """An error that hides everything helps nobody."""
    text = "s3://bucket/a/b could not be read: AWS Error ACCESS_DENIED during HeadObject operation"
    assert storage.shown(text) == text


def test_a_store_shows_its_address_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    """Not even to a debugger's repr."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPLANTEDPLANTED00")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    store = Store.at("s3://bucket/a").below("b")
    assert str(store) == "s3://bucket/a/b"
    assert SECRET not in repr(store)
    assert "AKIAPLANTED" not in repr(store)
