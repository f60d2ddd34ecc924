"""Commands as documents hold them: blocks, the simple commands of each, and who vouches for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

HELD = (
    "docs/how-to/build-images.md",
    "docs/how-to/choose-storage.md",
    "docs/how-to/gpu-nodes.md",
    "docs/how-to/install-on-a-cluster.md",
    "docs/how-to/run-from-ci.md",
    "docs/how-to/train-on-several-machines.md",
    "docs/how-to/watch-a-model.md",
    "docs/how-to/write-a-profile.md",
    "docs/measurements/scale.md",
    "docs/runbooks/cluster.md",
    "docs/security.md",
)
"""Documents whose every block of commands is run, or says in its first line what it needs. Those
that are older are held to commands and options that there are."""

RUN_BY: dict[str, str] = {}
"""Documents whose blocks another test runs: that test."""

NEEDS = re.compile(r"# needs (.+)")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
ENDS = frozenset({";", "&", "|", "&&", "||", "(", ")", ";;", "|&"})
WORDS = frozenset({"do", "then", "else", "if", "while", "!", "{", "time", "elif", "until"})


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block."""

    document: str
    line: int
    language: str
    text: str

    @property
    def needs(self) -> str:
        """What more than a checkout it needs; empty of one that is run."""
        found = NEEDS.fullmatch(self.text.split("\n", 1)[0])
        return found[1] if found else ""

    @property
    def commands(self) -> list[list[str]]:
        """Its simple commands, each as its words."""
        return list(simple(self.text))

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


SHELL = ("sh", "bash", "console", "shell", "")


def blocks(path: Path, *, languages: tuple[str, ...] = SHELL) -> list[Block]:
    """Return a document's fenced blocks; those that hold commands are ``sh``, or of no language."""
    text, found = path.read_text(encoding="utf-8"), list[Block]()
    for match in FENCE.finditer(text):
        indent, language, body = match.groups()
        if language in languages:
            body = re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
            line = text.count("\n", 0, match.start()) + 1
            name = path.relative_to(ROOT).as_posix()
            found.append(Block(document=name, line=line, language=language, text=body))
    return found


def spoken(path: Path) -> list[list[str]]:
    """Return the commands of ours that a document's sentences name, each as its words."""
    sentences = FENCE.sub("", path.read_text(encoding="utf-8"))
    spans = re.findall(r"`(penstock [a-z][^`]*)`", sentences)
    return [words for span in spans for words in simple(span.replace("\n", " "))]


def simple(text: str) -> Iterator[list[str]]:
    """Yield the simple commands of a script, without assignments, redirections and comments."""
    for line in text.replace("\\\n", " ").splitlines():
        words = list[str]()
        for word in (*_words(line), ";"):
            if word in ENDS:
                if command := _bare(words):
                    yield command
                words = []
            else:
                words.append(word)


def _words(line: str) -> list[str]:
    line = re.sub(r"(?<!\S)\d(?=[<>])", "", line)  # the 2 of 2>&1
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        return list(lexer)
    except ValueError:
        return []  # a quote that goes on in the next line, or a picture


def _bare(words: list[str]) -> list[str]:
    """Return a command's words alone."""
    kept, skip = list[str](), False
    for word in words:
        if skip:
            skip = False
        elif re.fullmatch(r"[<>]+&?", word):
            skip = True
        elif kept or not (word in WORDS or re.fullmatch(r"\w+=.*", word)):
            kept.append(word)
    return kept
