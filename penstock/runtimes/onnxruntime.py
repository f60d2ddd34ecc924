"""Run an ONNX graph with ONNX Runtime: on the CPU, or where one of its other providers is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from penstock.runtimes.processor import described, has_vnni

# With it, an int8 graph computes something else than its own Q/DQ nodes say (42 dB apart).
_UNFAITHFUL = ["WeightBiasQuantization"]

_EXACT_SUMS = "session.x64quantprecision"
"""Without VNNI, the fast int8 kernel adds in 16 bits, which may overflow; this takes the other.

With VNNI it would give the same numbers and take 1.45 times as long (onnxruntime 1.31).
"""

_NOT_ON_THE_CPU = "session.disable_cpu_ep_fallback"
"""With it, a graph of which any node would run on the CPU is not loaded."""

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""What computes, by the word we use for it."""


def options(provider: str) -> dict[str, str]:
    """Return what a provider is told.

    CUDA: choose convolutions by rule, since timing each at its first shape costs seconds there, and
    compute float in full. TensorRT: take int8 from the graph's Q/DQ. Its caches stay off, so that a
    provider writes nothing: the folder of a graph is a sealed bundle, and a start that found what
    an earlier one had built would not be measured as a first one.
    """
    if provider == "cuda":
        return {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    if provider == "tensorrt":
        off = dict.fromkeys(("trt_engine_cache_enable", "trt_timing_cache_enable"), "False")
        return {"trt_int8_enable": "True", **off}
    return {}


class OnnxModel:
    """A graph with one float32 input and one float32 output.

    With another provider than the CPU's, that it loaded proves that every node was given to that
    provider, and that it answered proves that it ran there: what the provider cannot take, and what
    fails as it runs, is an error and never a quiet turn to the CPU. It does not tell in which
    precision the provider computes.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        reference: bool = False,
        provider: str = "cpu",
        provider_options: Mapping[str, str] | None = None,
    ) -> None:
        """Load a graph.

        Args:
            threads: Of the CPU.
            reference: Switch every optimization off.
            provider: One of ``PROVIDERS``, which must take the whole graph.
            provider_options: What that provider is told.

        Raises:
            ValueError: It cannot be loaded, the provider is not to be had or leaves a node to the
                CPU, or it has other inputs or outputs than one float32 each.
        """
        chosen = (PROVIDERS[provider], dict(provider_options or {}))
        self._session = _load(path, _options(threads=threads, reference=reference), chosen)
        given, made = (
            _only(self._session.get_inputs(), path),
            _only(self._session.get_outputs(), path),
        )
        self.input_name: str = given.name
        self.output_name: str = made.name
        self._rank = len(given.shape)
        sizes = [size for size in made.shape[-1:] if isinstance(size, int)]
        self._classes: int | None = sizes[0] if sizes else None

    @property
    def classes(self) -> int:
        """Size of the output's last axis.

        Raises:
            ValueError: The graph leaves it open.
        """
        if self._classes is None:
            raise ValueError(f"output {self.output_name!r} has no fixed number of classes.")
        return self._classes

    def run(self, x_n: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return outputs [n, ...] for inputs [n, ...].

        Raises:
            ValueError: Not float32, or another number of axes than the graph's input has.
        """
        if x_n.dtype != np.float32 or x_n.ndim != self._rank:
            raise ValueError(
                f"input {self.input_name!r} got {x_n.dtype} with {x_n.ndim} axes; float32 with "
                f"{self._rank} was wanted."
            )
        return np.asarray(self._session.run([self.output_name], {self.input_name: x_n})[0])

    @staticmethod
    def tensors(
        graph: bytes, names: list[str], x_n: NDArray[np.float32]
    ) -> list[NDArray[np.float64]]:
        """Return some outputs of a serialized graph, computed without optimizations."""
        options = _options(threads=1, reference=True)
        session: Any = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        found = session.run(names, {session.get_inputs()[0].name: x_n})
        return [np.asarray(values, np.float64) for values in found]


def _options(*, threads: int, reference: bool) -> Any:
    options: Any = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    if has_vnni(described()) is False:
        options.add_session_config_entry(_EXACT_SUMS, "1")
    if reference:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _load(path: Path, options: Any, provider: tuple[str, dict[str, str]]) -> Any:
    name = provider[0]
    if name not in ort.get_available_providers():
        raise ValueError(f"this onnxruntime has no {name}; install one that was built with it.")
    if name != PROVIDERS["cpu"]:
        options.add_session_config_entry(_NOT_ON_THE_CPU, "1")
    try:
        # Its Python layer has a fallback of its own, at loading and when a run fails.
        session: Any = ort.InferenceSession(
            str(path), options, providers=[provider], disabled_optimizers=_UNFAITHFUL,
            enable_fallback=0,
        )  # fmt: skip
    except Exception as e:  # its exceptions share no base
        raise ValueError(f"{path} cannot be loaded: {e}") from e
    # A provider whose libraries do not load is dropped with a line on standard error, no more.
    if session.get_providers()[0] != name:
        raise ValueError(f"{name} did not start, so {path} would run on the CPU; see its message.")
    return session


def _only(tensors: Any, path: Path) -> Any:
    kinds = [t.type for t in tensors]
    if kinds != ["tensor(float)"]:
        raise ValueError(f"{path} has {kinds}; one float32 input and one float32 output is wanted.")
    return tensors[0]


def raw_session(path: Path, *, threads: int) -> Callable[[NDArray[np.float32]], Any]:
    """Return ONNX Runtime with its own settings on the CPU: the floor that ours is held against."""
    options: Any = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session: Any = ort.InferenceSession(str(path), options, providers=[PROVIDERS["cpu"]])
    name = session.get_inputs()[0].name
    return lambda x_n: session.run(None, {name: x_n})
