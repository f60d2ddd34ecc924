"""Laws of the base: what is wanted stays with all it needs, and nothing that it does not need."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.images import slim

NAMES = tuple("abcdefgh")
graphs = st.dictionaries(
    st.sampled_from([f"p{n}" for n in NAMES]),
    st.lists(st.sampled_from([f"p{n}" for n in NAMES]), max_size=3),
    min_size=1,
)


def status(depends: dict[str, list[str]]) -> str:
    """Return dpkg's status of packages with their dependencies."""
    return "\n".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1-{name}\n"
        f"Depends: {', '.join(f'{other} (>= 1)' for other in others)}\nDescription: x\n more\n"
        for name, others in depends.items()
    )


@given(graphs)
def test_what_stays_needs_nothing_that_goes(depends: dict[str, list[str]]):
    packages = slim.installed(status(depends))
    first = next(iter(depends))
    kept = slim.needed(packages, (first,))

    assert first in kept
    for name in kept:
        assert {other for other in depends[name] if other in depends} <= kept


@given(graphs)
def test_what_stays_is_needed_by_something_that_stays(depends: dict[str, list[str]]):
    first = next(iter(depends))
    kept = slim.needed(slim.installed(status(depends)), (first,))
    for name in kept - {first}:
        assert any(name in depends[other] for other in kept)


def test_an_alternative_that_is_installed_stays():
    packages = slim.installed(
        "Package: aa\nStatus: install ok installed\nDepends: bb | cc,\n dd:any (>= 2)\n\n"
        "Package: cc\nStatus: install ok installed\n\nPackage: dd\nStatus: install ok installed\n\n"
        "Package: ee\nStatus: deinstall ok config-files\n"
    )
    assert slim.needed(packages, ("aa",)) == {"aa", "cc", "dd"}
    assert "ee" not in packages


def test_a_wanted_package_that_is_missing_is_told():
    with pytest.raises(ValueError, match=r"not installed: python3\.11"):
        slim.needed({}, ("python3.11",))


def test_files_of_what_goes_go_and_shared_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Paths through a link and past it are one file: /bin is a link to usr/bin."""
    monkeypatch.setattr(slim, "WANTED", ("kept",))
    monkeypatch.setattr(slim.needed, "__defaults__", (("kept",),))
    monkeypatch.setattr(slim.shutil, "chown", lambda *_: None)
    for folder in ("usr/bin", "etc", "var/lib/dpkg/info", "var/log", "tmp", "var/tmp"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    for name in ("usr/bin/sh", "usr/bin/gcc", "var/log/dpkg.log"):
        (tmp_path / name).write_text(name)
    info = tmp_path / "var/lib/dpkg/info"
    (info / "kept.list").write_text("/.\n/bin\n/bin/sh\n")
    (info / "gone:amd64.list").write_text("/.\n/usr/bin/sh\n/usr/bin/gcc\n")
    (tmp_path / "var/lib/dpkg/status").write_text(status({"kept": [], "gone": []}))
    slim.slim(tmp_path)

    assert {p.name for p in (tmp_path / "usr/bin").iterdir()} == {"sh"}
    assert set(slim.installed((tmp_path / "var/lib/dpkg/status").read_text())) == {"kept"}
    assert list((tmp_path / "var/log").iterdir()) == []
    assert "65532" in (tmp_path / "etc/passwd").read_text()
