"""A real browser that opens a page and says what it shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest


def shown(page: Path, *, width: int) -> tuple[str, int, bool]:
    """Return a page's headline, how many plots are drawn, and whether nothing is cut off sideways.

    The test is skipped where there is no browser.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser; on Debian: apt-get install chromium")
    probe = page.parent / "probe.html"
    probe.write_text(
        f'<iframe id="f" src="{page.name}" style="width:{width}px;height:900px"></iframe>'
        "<script>f.onload=()=>{const d=f.contentDocument,r=d.documentElement;"
        "const drawn=[...d.querySelectorAll('svg')].filter(s=>s.getBoundingClientRect().height>50);"
        "document.title=[d.querySelector('h1').textContent,drawn.length,"
        "r.scrollWidth<=r.clientWidth].join('|')}</script>"
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    flags += ["--allow-file-access-from-files", "--virtual-time-budget=5000"]
    command = [browser, *flags, f"--user-data-dir={page.parent / 'profile'}", "--dump-dom"]
    said = subprocess.run(
        [*command, probe.as_uri()], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    found = re.search(r"<title>(.*)\|(\d+)\|(true|false)</title>", said)
    assert found is not None, said
    return found[1], int(found[2]), found[3] == "true"
