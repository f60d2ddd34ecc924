"""Tokens: where the one that a server wants is from, and that no text shows it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.submission.ended import Ended, Outcome

VARIABLE = "PENSTOCK_KFP_TOKEN"
PROJECTED = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where a pod finds its service account's token for Kubeflow, by Kubeflow's own convention."""

HIDDEN = "***"
_FORM = re.compile(r"[!-~]+")


class Tokens:
    """Where the token is from: a file, the environment, or the pod's service account."""

    def __init__(self, file: Path | None, environment: Mapping[str, str] = os.environ) -> None:
        """Look in a file where one is named; else in the environment; else where pods have it."""
        self._file = file
        self._text = "" if file else environment.get(VARIABLE, "")
        if not file and not self._text and PROJECTED.exists():
            self._file = PROJECTED
        self._seen: set[str] = set()

    def now(self) -> str:
        """Return the token as it is now, empty where there is none.

        A file is read each time: a pod's token is replaced within the hour, a wait takes longer.

        Raises:
            Ended: The file cannot be read, or holds no token.
        """
        if self._file is None:
            return self._checked(self._text.strip(), VARIABLE) if self._text else ""
        try:
            return self._checked(self._file.read_text(encoding="utf-8").strip(), str(self._file))
        except (OSError, UnicodeDecodeError) as e:
            raise Ended(
                Outcome.WRONG_CALL, f"no token in {self._file}: {type(e).__name__}; name its file."
            ) from e

    def _checked(self, token: str, where: str) -> str:
        # What is no token is somebody's secret all the same: it is not shown.
        if not _FORM.fullmatch(token):
            reason = f"{where} holds no token: one line of letters and digits was wanted."
            raise Ended(Outcome.WRONG_CALL, reason)
        self._seen.add(token)
        return token

    def hidden(self, said: Any) -> Any:
        """Return a document in which no text shows a token that was ever read."""
        if isinstance(said, str):
            for token in sorted(self._seen, key=len, reverse=True):
                said = said.replace(token, HIDDEN)
            return said
        if isinstance(said, Mapping):
            return {key: self.hidden(value) for key, value in said.items()}
        if isinstance(said, (list, tuple)):
            return [self.hidden(value) for value in said]
        return said
