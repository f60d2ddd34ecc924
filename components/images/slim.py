"""Make a bootstrapped Debian into a base: Python, a shell, certificates, and nothing that builds.

``python3 slim.py ROOT``, as root, when every package is configured. Packages that no wanted one
needs go with their files; so do package managers, documents, logs and what differs from one
bootstrap to the next. dpkg's list of what stays is kept for whoever looks for vulnerable versions.
"""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

WANTED = (
    "base-files",
    "ca-certificates",
    "coreutils",
    "dash",
    "libc-bin",
    "libgomp1",
    "libstdc++6",
    "media-types",
    "netbase",
    "python3-minimal",
    "python3.11",
    "tzdata",
)
"""What images use; wheels bring all other libraries with them."""

CONFIGURED = frozenset({"debconf", "dpkg", "openssl", "perl-base", "readline-common"})
"""Needed to configure a package, and not to use it afterwards."""

EMPTIED = (
    "boot", "home", "media", "mnt", "opt", "root", "run", "srv", "tmp",
    "etc/apt", "etc/cron.d", "etc/cron.daily", "etc/default", "etc/init.d", "etc/kernel",
    "etc/logrotate.d", "etc/pam.d", "etc/security", "etc/skel", "etc/systemd", "etc/xdg",
    "usr/games", "usr/include", "usr/lib/systemd", "usr/local", "usr/share/bash-completion",
    "usr/share/bug", "usr/share/debconf", "usr/share/doc", "usr/share/info", "usr/share/lintian",
    "usr/share/locale", "usr/share/man", "usr/share/menu", "usr/share/perl5", "usr/share/pixmaps",
    "usr/src", "var/backups", "var/cache", "var/lib/apt", "var/lib/dpkg/info", "var/lib/pam",
    "var/lib/systemd", "var/log", "var/mail", "var/spool", "var/tmp",
)  # fmt: skip
"""Folders whose content no container reads; the folders themselves stay."""

REMOVED = (
    "etc/.pwd.lock", "etc/group-", "etc/gshadow", "etc/gshadow-", "etc/hostname", "etc/hosts",
    "etc/passwd-", "etc/resolv.conf", "etc/shadow", "etc/shadow-", "etc/subgid", "etc/subuid",
    "var/lib/dpkg/available", "var/lib/dpkg/diversions-old", "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend", "var/lib/dpkg/status-old", "var/lib/dpkg/triggers/Lock",
)  # fmt: skip
"""Files that a run time writes, or that say when the base was made."""

USERS = "root:x:0:0:root:/root:/usr/sbin/nologin\npenstock:x:65532:65532::/tmp:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\npenstock:x:65532:\n"
HOME = "var/lib/penstock"
OWNER = 65532

Stanza = Mapping[str, str]


def installed(status: str) -> dict[str, Stanza]:
    r"""Return the fields of each package that dpkg's status file calls installed.

    >>> installed("Package: a\nStatus: install ok installed\nDepends: b,\n c\n")["a"]["Depends"]
    'b, c'
    """
    found: dict[str, Stanza] = {}
    for text in status.split("\n\n"):
        unfolded = re.sub(r"\n\s+", " ", text)
        fields = dict(line.split(": ", 1) for line in unfolded.splitlines() if ": " in line)
        if fields.get("Status") == "install ok installed":
            found[fields["Package"]] = fields
    return found


def needed(packages: Mapping[str, Stanza], wanted: tuple[str, ...] = WANTED) -> set[str]:
    """Return the wanted packages and all that they depend on, as far as it is installed.

    Raises:
        ValueError: A wanted package is not installed.
    """
    if missing := [name for name in wanted if name not in packages]:
        raise ValueError(f"not installed: {', '.join(missing)}; add them to the bootstrap.")
    found: set[str] = set()
    ahead = list(wanted)
    while ahead:
        name = ahead.pop()
        if name in found or name in CONFIGURED:
            continue
        found.add(name)
        asked = f"{packages[name].get('Depends', '')},{packages[name].get('Pre-Depends', '')}"
        names = re.findall(r"[,|]\s*([a-z0-9][a-z0-9+.-]+)", "," + asked)
        ahead += [n for n in names if n in packages]
    return found


def slim(root: Path) -> None:
    """Leave of a root file system what containers use."""
    status = root / "var/lib/dpkg/status"
    packages = installed(status.read_text())
    kept = needed(packages)
    stay = {path for name in kept for path in _files(root, name, packages[name])}
    gone = {path for name in packages.keys() - kept for path in _files(root, name, packages[name])}
    for path in gone - stay:
        path.unlink(missing_ok=True)
    text = status.read_text().split("\n\n")
    status.write_text("\n\n".join(t for t in text if installed(t).keys() & kept) + "\n")
    _clean(root)
    (root / "etc/passwd").write_text(USERS)
    (root / "etc/group").write_text(GROUPS)
    (root / HOME).mkdir(mode=0o755)
    shutil.chown(root / HOME, OWNER, OWNER)


def _files(root: Path, name: str, fields: Stanza) -> set[Path]:
    """Return a package's files, each under the one path that no link leads to."""
    info = root / "var/lib/dpkg/info"
    beside = [info / f"{name}.list", info / f"{name}:{fields['Architecture']}.list"]
    listed = next(p for p in beside if p.exists()).read_text().splitlines()
    found = (root / line.lstrip("/") for line in listed)
    return {p.parent.resolve() / p.name for p in found if p.is_symlink() or p.is_file()}


def _clean(root: Path) -> None:
    for name in EMPTIED:
        for inside in (root / name).glob("*"):
            if inside.is_dir() and not inside.is_symlink():
                shutil.rmtree(inside)
            else:
                inside.unlink()
    for name in REMOVED:
        (root / name).unlink(missing_ok=True)
    # Bytecode that Debian's packages made is believed by time, and times are made equal.
    for cache in (root / "usr").rglob("__pycache__"):
        shutil.rmtree(cache)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)


if __name__ == "__main__":
    slim(Path(sys.argv[1]))
