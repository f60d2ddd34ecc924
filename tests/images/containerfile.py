"""The Containerfile as stages of instructions, for laws about it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parents[2] / "components" / "images"


@dataclass
class Stage:
    """One FROM and what follows it."""

    name: str
    parent: str
    instructions: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def of(self, word: str) -> list[str]:
        """Return what follows each instruction of a kind."""
        return [rest for kind, rest in self.instructions if kind == word]


def parse(text: str) -> dict[str, Stage]:
    """Return the stages by name; instructions before the first FROM are left out."""
    found: dict[str, Stage] = {}
    joined = re.sub(r"\s*\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    for line in filter(None, joined.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            parent, _, name = rest.split()
            found[name] = last = Stage(name, parent)
        elif found:
            last.instructions.append((word, rest))
    return found


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """Return a stage after all that it is built upon, the first of them first."""
    stage = stages[name]
    above = lineage(stages, stage.parent) if stage.parent in stages else []
    return [*above, stage]


STAGES = parse((HERE / "Containerfile").read_text(encoding="utf-8"))
TARGETS = ("data", "train", "engine", "control", "serve", "engine-gpu", "serve-gpu")
