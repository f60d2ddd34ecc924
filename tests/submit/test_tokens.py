"""Laws of tokens: the newest is used, and none is ever shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.submission.ended import Ended, Outcome
from pipelines.submission.tokens import Tokens

token = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=80)
said = st.recursive(
    st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(token, st.lists(st.text(), max_size=4), said)
def test_no_text_shows_a_token(secret: str, between: list[str], other: object):
    """Whatever a server says of it, and however deep in a document."""
    tokens = Tokens(None, {"PENSTOCK_KFP_TOKEN": secret})
    tokens.now()

    shown = tokens.hidden({"text": secret.join(["", *between, ""]), "more": [other, secret]})

    assert all(secret not in text for text in _texts(shown))


def _texts(document: object) -> list[str]:
    if isinstance(document, str):
        return [document]
    inside = document.values() if isinstance(document, dict) else document
    return [text for one in inside for text in _texts(one)]


def test_every_token_that_was_ever_read_is_hidden(tmp_path: Path):
    """Also the one before the last, and a longer one that holds a shorter."""
    file = tmp_path / "token"
    tokens = Tokens(file, {})
    for text in ("first-token", "first-token-and-more"):
        file.write_text(f"{text}\n")
        assert tokens.now() == text

    assert tokens.hidden("a first-token-and-more, a first-token") == "a ***, a ***"


def test_a_file_wins_over_the_environment_and_that_over_the_pods_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each source where the one before is not there."""
    (tmp_path / "file").write_text("of-the-file")
    (tmp_path / "pod").write_text("of-the-pod")
    monkeypatch.setattr("pipelines.submission.tokens.PROJECTED", tmp_path / "pod")
    environment = {"PENSTOCK_KFP_TOKEN": "of-the-environment"}

    assert Tokens(tmp_path / "file", environment).now() == "of-the-file"
    assert Tokens(None, environment).now() == "of-the-environment"
    assert Tokens(None, {}).now() == "of-the-pod"
    monkeypatch.setattr("pipelines.submission.tokens.PROJECTED", tmp_path / "none")
    assert Tokens(None, {}).now() == ""


@pytest.mark.parametrize("text", ["", "two lines\nof it", "secret with blanks", "sécret-token"])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, text: str):
    """It could be a password that somebody put there; in a header it would do harm."""
    (tmp_path / "token").write_text(text)

    with pytest.raises(Ended) as refused:
        Tokens(tmp_path / "token", {}).now()

    assert refused.value.outcome is Outcome.WRONG_CALL
    assert not text or text not in json.dumps(refused.value.reason, ensure_ascii=False)


def test_a_file_that_is_not_there_is_a_wrong_call(tmp_path: Path):
    with pytest.raises(Ended, match="none: FileNotFoundError"):
        Tokens(tmp_path / "none", {}).now()
