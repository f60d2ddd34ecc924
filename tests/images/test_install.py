"""Laws of what is installed: bytecode that no time spoils, no tests, no headers, the same modes."""

import importlib.util
import os
import py_compile
import struct
from pathlib import Path

from components.images import install

UNCHECKED_HASH = 0b01


def made(root: Path, files: dict[str, str]) -> Path:
    """Write files below a folder and return it."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def below(root: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


def test_bytecode_is_believed_whatever_time_a_layer_gives_to_a_file(tmp_path: Path):
    """Layers set all files to one time, which bytecode that goes by time would not survive."""
    root = made(tmp_path, {"a.py": "VALUE = 1\n", "b/c.py": "VALUE = 2\n"})
    install.compiled(root)
    for source in root.rglob("*.py"):
        os.utime(source, (0, 0))
        bytecode = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        assert struct.unpack("<I", bytecode[4:8])[0] == UNCHECKED_HASH


def test_bytecode_that_is_there_stays(tmp_path: Path):
    """A layer that wrote a file of the layer below again would hold it twice."""
    root = made(tmp_path, {"a.py": "VALUE = 1\n"})
    install.compiled(root)
    bytecode = Path(importlib.util.cache_from_source(str(root / "a.py")))
    before = bytecode.stat().st_mtime_ns, bytecode.stat().st_ino
    install.compiled(root)
    assert (bytecode.stat().st_mtime_ns, bytecode.stat().st_ino) == before


def test_a_template_in_the_clothes_of_a_module_is_passed_over(tmp_path: Path):
    root = made(tmp_path, {"a.py": "{{ name }} = \n", "b.py": "VALUE = 1\n"})
    install.compiled(root)
    assert {Path(name).name.split(".")[0] for name in below(root) if name.endswith("pyc")} == {"b"}


def test_what_only_builds_and_tests_need_goes(tmp_path: Path):
    root = made(
        tmp_path,
        dict.fromkeys(
            [
                "numpy/core.py", "numpy/core.so", "numpy/core.pyx", "numpy/_core/include/ndarray.h",
                "numpy/tests/test_core.py", "tests/__init__.py", "torch/lib/libx.a", "torch/x.json",
                "torch/testing/__init__.py", "torch/lib/libx.so.1",
            ],
            "",
        ),
    )  # fmt: skip
    install.prune(root)
    assert below(root) == {
        "numpy/core.py", "numpy/core.so", "tests/__init__.py", "torch/lib/libx.so.1",
        "torch/testing/__init__.py", "torch/x.json",
    }  # fmt: skip


def test_a_checkout_s_modes_do_not_matter(tmp_path: Path):
    root = made(tmp_path, {"a.py": "VALUE = 1\n", "b/c.yaml": "x: 1\n"})
    (root / "a.py").chmod(0o600)
    (root / "b").chmod(0o700)
    install.sources(root)
    for path in root.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644) or (
            path.suffix == ".pyc"
        )


def test_compiling_is_what_python_s_own_compiler_does(tmp_path: Path):
    root = made(tmp_path, {"a.py": "def f(x):\n    return {1, x}\n"})
    install.compiled(root)
    ours = Path(importlib.util.cache_from_source(str(root / "a.py"))).read_bytes()
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    theirs = py_compile.compile(
        str(root / "a.py"), cfile=str(tmp_path / "x"), invalidation_mode=mode
    )
    assert ours == Path(str(theirs)).read_bytes()
