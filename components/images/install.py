"""Install one list of packages into an image's environment, or take sources in; for builds only.

``python3 install.py packages LIST`` and ``python3 install.py sources FOLDER``. What only a compiler
or a test needs is removed, and bytecode is made here: a container may not write it, and without it
each step would compile all it imports, anew every time.
"""

import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

VENV = Path("/venv")
UV = "/run/uv/uv"
GIVEN = {
    "UV_CACHE_DIR": Path("/run/cache"),
    "UV_CONFIG_FILE": Path("/run/uv.toml"),
    "UV_BUILD_CONSTRAINT": Path("/venv/locks/builds.txt"),
    "SSL_CERT_FILE": Path("/run/certificates"),
}
"""What a build is given, by the variable that tells uv of it."""

WITHOUT_WHEEL = frozenset({"kfp-server-api", "tensorrt-cu13-libs"})
"""Published as sources only: one is all Python, the other fetches NVIDIA's wheel."""

UNUSED = (".a", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".pxd", ".pyi", ".pyx")
"""Ends of names of files that nothing reads at run time."""

FOR_BUILDS = ("include", "test", "tests")
"""Folders of headers and of tests, unless a package of that name stands at the top."""


def packages(listed: Path, venv: Path = VENV) -> None:
    """Install what a list pins, by hash and from wheels: nothing is compiled."""
    if not (venv / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    command = [UV, "pip", "install", "--python", str(venv / "bin" / "python")]
    exact = ["--require-hashes", "--no-deps", "--link-mode", "copy", "--requirements", str(listed)]
    named = re.findall(r"^([\w.-]+)==", listed.read_text(encoding="utf-8"), re.MULTILINE)
    wheels = [f"--only-binary={name}" for name in named if name not in WITHOUT_WHEEL]
    told = {name: str(path) for name, path in GIVEN.items() if path.exists()}
    with tempfile.TemporaryDirectory() as scratch:
        # uv leaves locks there, named by chance.
        environment = {**os.environ, **told, "TMPDIR": scratch}
        subprocess.run([*command, *exact, *wheels], env=environment, check=True)
    (venv / ".lock").unlink(missing_ok=True)
    for site in venv.glob("lib/python*/site-packages"):
        prune(site)
        compiled(site)


def prune(site: Path) -> None:
    """Remove headers, C sources, stubs and tests of installed packages."""
    for folder in [p for p in _walked(site) if p.is_dir() and _for_builds(p, site)]:
        shutil.rmtree(folder, ignore_errors=True)
    for file in [p for p in _walked(site) if p.suffix in UNUSED and p.is_file()]:
        file.unlink()


def _for_builds(folder: Path, site: Path) -> bool:
    inside = folder.relative_to(site).parts
    return len(inside) > 1 and inside[-1] in FOR_BUILDS


def compiled(root: Path) -> None:
    """Write bytecode that is believed unseen, for every module that has none.

    Modules are taken in the order of their names, in one process: the bytes of bytecode depend on
    what the process holds. Templates in the clothes of a module are passed over.
    """
    for module in (p for p in _walked(root) if p.suffix == ".py" and p.is_file()):
        made = module.parent / "__pycache__" / f"{module.stem}.{sys.implementation.cache_tag}.pyc"
        if not made.exists():
            py_compile.compile(
                str(module),
                cfile=str(made),
                quiet=2,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )


def sources(root: Path) -> None:
    """Give sources the modes and the bytecode that every checkout of them gets."""
    for path in _walked(root):
        path.chmod(0o755 if path.is_dir() else 0o644)
    compiled(root)


def _walked(root: Path) -> Iterator[Path]:
    for folder, inside, files in os.walk(root):
        inside.sort()
        yield from (Path(folder) / name for name in (*inside, *sorted(files)))


if __name__ == "__main__":
    {"packages": packages, "sources": sources}[sys.argv[1]](Path(sys.argv[2]))
