"""Seeds and flags that make training repeatable, and the hashes that prove it."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Proof that the first steps, trained twice from the start, gave the same bits."""

    steps: int
    first: str
    second: str
    tensors: int
    """How many were hashed; of none, nothing is proved."""

    differed: tuple[str, ...]
    """Names of the tensors that were not equal, model and optimizer alike."""

    threads: int
    world: int
    """Processes that shared every step."""

    torch_version: str
    device: str

    @property
    def holds(self) -> bool:
        """Whether both runs agree bit for bit."""
        return bool(self.tensors) and self.first == self.second and not self.differed

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with ``holds``."""
        return {**asdict(self), "differed": list(self.differed), "holds": self.holds}


def enforce(*, seed: int, threads: int) -> None:
    """Seed every generator and refuse operations that have no deterministic form.

    A nondeterministic operation then raises torch's RuntimeError, which names it.
    """
    # cuBLAS reads this when its first handle is made; without it its sums may vary by stream.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries below may use the global generator
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(threads)


def tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return every tensor of model and optimizer by a stable name."""
    found = {f"model.{name}": t for name, t in model.state_dict().items()}
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    for index, entries in sorted(state.items()):
        for name, value in sorted(entries.items()):
            if isinstance(value, torch.Tensor):
                found[f"optimizer.{index}.{name}"] = value
    return found


def hashes(named: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return the hash of each tensor's bytes, type and shape."""
    return {name: hashlib.sha256(b"".join(_parts(t))).hexdigest() for name, t in named.items()}


def _parts(tensor: torch.Tensor) -> Iterator[bytes]:
    array = tensor.detach().cpu().contiguous().numpy()
    yield f"{array.dtype} {array.shape}".encode()
    yield array.tobytes()


def combined(by_name: Mapping[str, str]) -> str:
    """Return one hash of all, in name order."""
    text = "\n".join(f"{name} {by_name[name]}" for name in sorted(by_name))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def certify(
    first: Mapping[str, str],
    second: Mapping[str, str],
    *,
    steps: int,
    threads: int,
    device: str,
    world: int = 1,
) -> Certificate:
    """Compare the tensor hashes of two runs."""
    names = sorted(first.keys() | second.keys())
    return Certificate(
        steps=steps,
        first=combined(first),
        second=combined(second),
        tensors=len(names),
        differed=tuple(n for n in names if first.get(n) != second.get(n)),
        threads=threads,
        world=world,
        torch_version=torch.__version__,
        device=device,
    )
