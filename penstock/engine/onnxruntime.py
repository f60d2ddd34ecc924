"""The engine that is the graph itself, run by ONNX Runtime with one of its providers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.engine.backend import Built, State, Task
from penstock.runtimes.onnxruntime import OnnxModel, options


@dataclass(frozen=True)
class OnnxRuntime:
    """Loads the int8 graph; there is no plan to keep.

    That it ran on another provider than the CPU's means that none of its nodes was the CPU's: see
    :class:`penstock.runtimes.onnxruntime.OnnxModel`. It does not mean that a layer was computed in
    int8 there: ``int8_layers`` stays None.
    """

    provider: str
    """One of :data:`penstock.runtimes.onnxruntime.PROVIDERS`."""

    def build(self, task: Task) -> Built:
        """Load the graph and write its outputs on the golden inputs."""
        inputs_n = np.load(task.golden)["inputs"]
        try:
            model = OnnxModel(
                task.onnx,
                provider=self.provider,
                provider_options=options(self.provider),
            )
            step = task.batches[2]
            parts = [model.run(inputs_n[i : i + step]) for i in range(0, len(inputs_n), step)]
        except ValueError as e:
            return Built(name=task.backend, state=State.NOT_BUILT, reason=str(e))
        np.save(task.file("npy"), np.concatenate(parts).astype(np.float32))
        return Built(name=task.backend, state=State.RUN)
