"""Laws of parameters: what reaches a step is what was meant, or nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.submission.parameters import EXACT, ParameterError, from_text, gather, read

KINDS = {
    "seed": "NUMBER_INTEGER",
    "share": "NUMBER_DOUBLE",
    "champion": "STRING",
    "dry": "BOOLEAN",
    "bounds": "STRUCT",
    "markets": "LIST",
}
plain = st.text(st.characters(codec="utf-8")).filter(lambda text: "{{" not in text)
whole = st.integers(-EXACT, EXACT)
real = st.floats(allow_nan=False, allow_infinity=False)
leaves = st.none() | st.booleans() | whole | real | plain
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(plain, inner), max_leaves=12
)
BY_KIND = {
    "NUMBER_INTEGER": whole,
    "NUMBER_DOUBLE": real | whole,
    "STRING": plain,
    "BOOLEAN": st.booleans(),
    "STRUCT": st.dictionaries(plain, values),
    "LIST": st.lists(values),
}


def written(kind: str, value: Any) -> str:
    """Return a value as a person types it."""
    return value if kind == "STRING" else json.dumps(value)


@given(st.data())
def test_what_is_typed_is_what_arrives(data: st.DataObject):
    """For every type: written out and read again it is the same value of the same type."""
    kind = data.draw(st.sampled_from(sorted(BY_KIND)))
    value = data.draw(BY_KIND[kind])

    came = from_text("x", kind, written(kind, value))

    assert (came, type(came)) == (value, type(value))


@given(text=st.text(), kind=st.sampled_from(sorted(BY_KIND)))
def test_any_text_is_a_value_that_can_be_sent_or_a_sentence(text: str, kind: str):
    """No other error; what is taken survives the server, which keeps numbers as doubles."""
    try:
        came = from_text("x", kind, text)
    except ParameterError:
        return

    sent = json.loads(json.dumps(came, allow_nan=False))
    if kind.startswith("NUMBER"):
        assert float(sent) == came
    else:
        assert sent == came


@given(st.dictionaries(st.sampled_from(sorted(KINDS)), st.none(), min_size=1), st.data())
def test_a_file_and_flags_say_the_same(names: dict[str, None], data: st.DataObject):
    """The same values, from a file or typed, are the same arguments; what is typed wins."""
    given_ = {name: data.draw(BY_KIND[KINDS[name]]) for name in names}
    other = {name: data.draw(BY_KIND[KINDS[name]]) for name in names}
    typed = [f"{name}={written(KINDS[name], value)}" for name, value in given_.items()]

    assert gather(KINDS, given_, []) == gather(KINDS, None, typed) == gather(KINDS, other, typed)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["sed=7"], "unknown parameter 'sed'; the pipeline has bounds, champion"),
        (["seed"], "'seed' came, name=value was wanted"),
        (["seed=1", "seed=2"], "given twice"),
        (["seed=7.0"], "a whole number was wanted"),
        (["seed=1_000"], "a whole number was wanted"),
        (["seed=٣"], "a whole number was wanted"),
        (["seed=true"], "a whole number was wanted"),
        (["seed=9007199254740993"], "up to 9,007,199,254,740,992"),
        (["seed=" + "9" * 5000], "a whole number was wanted"),
        (["share=NaN"], "no finite number"),
        (["share=much"], "a number was wanted"),
        (["dry=yes"], "true or false was wanted"),
        (["dry=1"], "true or false was wanted"),
        (["bounds=[1]"], "a table, as JSON was wanted"),
        (["markets={}"], "a list, as JSON was wanted"),
        (["markets=" + "[" * 5000 + "]" * 5000], "a list, as JSON was wanted"),
        (["champion={{$.inputs.x}}"], "is filled in on its way"),
        (['bounds={"a": [{"b": "{{x}}"}]}'], "is filled in on its way"),
    ],
)
def test_what_is_no_value_is_refused_in_a_sentence(pairs: list[str], said: str):
    with pytest.raises(ParameterError) as refused:
        gather(KINDS, None, pairs)

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"seed": "7"}, "seed='7' came, a whole number was wanted"),
        ({"seed": True}, "a whole number was wanted"),
        ({"seed": 7.0}, "a whole number was wanted"),
        ({"champion": 3}, "text was wanted"),
        ({"champion": None}, "text was wanted"),
        ({"bounds": {1: 2}}, "a key in it is no text"),
        ({"markets": [{1, 2}]}, "it holds a set"),
        ([1], "a list came, a table of names was wanted"),
        ({1: 2}, "a table of names was wanted"),
    ],
)
def test_what_a_file_holds_is_held_to_its_type(document: object, said: str):
    """A file's values have types of their own: 7 in quotes is no number."""
    with pytest.raises(ParameterError) as refused:
        gather(KINDS, document, [])

    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", '{"seed": 7, "share": 0.5, "bounds": {"a": 1}}'),
        ("p.toml", "seed = 7\nshare = 0.5\n[bounds]\na = 1\n"),
        ("p.yaml", yaml.safe_dump({"seed": 7, "share": 0.5, "bounds": {"a": 1}})),
    ],
)
def test_a_file_may_be_json_toml_or_yaml(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)

    assert gather(KINDS, read(tmp_path / name), []) == {"seed": 7, "share": 0.5, "bounds": {"a": 1}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.json", "{"),
        ("p.toml", "seed ="),
        ("p.yaml", "a: [1"),
        ("p.json", "[" * 100_000),
        ("p.ini", "seed = 7"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)

    with pytest.raises(ParameterError, match=name):
        read(tmp_path / name)
