"""Load and run a plan of TensorRT 10 and 11 or TensorRT-RTX, which share one interface.

Neither library is imported before it is asked for: most machines have none.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock import machine
from penstock.runtimes import cuda, plan
from penstock.runtimes.plan import Here, PlanManifest

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx_bindings"}
"""What to import for each backend."""

INSTALL = {
    "tensorrt": "install tensorrt (10.13 or newer) for the CUDA version of this machine",
    "tensorrt-rtx": "type: make rtx",
}


class NotInstalled(RuntimeError):
    """The library of a backend is not here. The text says what to install."""


@dataclass(frozen=True)
class Message:
    """One line of the library's log."""

    severity: int
    """0 internal error, 1 error, 2 warning, 3 information, 4 verbose."""

    text: str


def library(backend: str) -> Any:
    """Return a backend's library.

    Raises:
        NotInstalled: It is missing, or a part of it does not load.
    """
    try:
        return importlib.import_module(MODULES[backend])
    except (ImportError, OSError) as e:
        raise NotInstalled(f"{backend} cannot be imported here ({e}); {INSTALL[backend]}") from e


def listening(trt: Any, hear: Callable[[Message], None]) -> Any:
    """Return a logger of the library that passes every message on."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            hear(Message(int(severity), text))

    return Logger()


def here(backend: str) -> Here:
    """Return this machine as a plan of the backend sees it."""
    try:
        version: str | None = str(library(backend).__version__)
    except NotInstalled:
        version = None
    gpu = machine.gpu()
    return Here(
        platform=this_platform(),
        version=version,
        gpu=gpu["gpu"],
        compute_capability=gpu["compute_capability"],
        driver=gpu["driver"],
        cuda=gpu["cuda"],
    )


def made_for_cuda(backend: str) -> str | None:
    """Return the major CUDA version that the installed library was made for, None if not told."""
    names = importlib.metadata.packages_distributions().get(MODULES[backend], [])
    found = [made[1] for name in names if (made := re.search(r"[-_]cu(\d+)", name))]
    return found[0] if found else None


def this_platform() -> str:
    """Return the operating system and processor, which plans are bound to."""
    return f"{platform.system().lower()}-{platform.machine()}"


def runtime(trt: Any, logger: Any, *, version_compatible: bool) -> Any:
    """Return what loads plans, for a plan whose bytes were checked.

    Plans that newer versions may load carry a runtime of their own, which runs on the host; the
    library loads it only where that is allowed.
    """
    made = trt.Runtime(logger)
    made.engine_host_code_allowed = version_compatible
    return made


class TensorRTModel:
    """A plan of one float32 input and one float32 output, on the first CUDA device."""

    def __init__(self, path: Path, manifest: PlanManifest, *, onnx: str) -> None:
        """Check the plan against its graph and this machine, then load it.

        Args:
            onnx: ``sha256:`` and the hash of the graph whose answers the plan is to give.

        Raises:
            PlanMismatch: It must not be loaded here; nothing of it was read as code.
            NotInstalled: The library is missing.
            NoDevice: There is no CUDA device.
            ValueError: The library refuses the plan, or it has other inputs or outputs.
        """
        data = plan.verified(path, manifest, here(manifest.backend), onnx=onnx)
        self._trt = library(manifest.backend)
        self._errors: list[str] = []
        self._logger = listening(self._trt, self._hear)
        self._device = cuda.Device()
        free = self._device.free_bytes()
        self._runtime = runtime(
            self._trt, self._logger, version_compatible=manifest.version_compatible
        )
        self._engine = self._made(self._runtime.deserialize_cuda_engine(data), "plan")
        self._context = self._made(self._engine.create_execution_context(), "execution context")
        self._bind(manifest)
        self.device_memory_mb = (free - self._device.free_bytes()) / 1e6

    def run(self, x_n: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return outputs [n, k] for inputs [n, ...], in batches that the profile allows.

        Raises:
            ValueError: Not float32, of another shape, or the library could not run.
        """
        if x_n.dtype != np.float32 or x_n.shape[1:] != self._shape or not len(x_n):
            raise ValueError(
                f"input {self.input_name!r} got {x_n.dtype} of shape {x_n.shape}; float32 "
                f"[n, {', '.join(map(str, self._shape))}] was wanted."
            )
        step = self._largest
        return np.concatenate([self._batch(x_n[i : i + step]) for i in range(0, len(x_n), step)])

    def layers(self) -> str:
        """Return what the library says of the engine's layers, as JSON."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def _batch(self, x_b: NDArray[np.float32]) -> NDArray[np.float32]:
        given = np.ascontiguousarray(cuda.padded(x_b, self._smallest))
        self._device.use()
        self._context.set_input_shape(self.input_name, given.shape)
        made = np.empty(tuple(self._context.get_tensor_shape(self.output_name)), np.float32)
        self._device.upload(given, self._input)
        self._device.poison(self._output, made.size)
        if not self._context.execute_async_v3(self._device.stream):
            raise ValueError(f"the engine could not run: {self._last()}")
        self._device.download(self._output, made)
        self._device.wait()
        return made[: len(x_b)]

    def _bind(self, manifest: PlanManifest) -> None:
        """Take memory for the largest batch, and tell the engine where it is."""
        engine, mode = self._engine, self._trt.TensorIOMode.INPUT
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == mode]
        outputs = [n for n in names if n not in inputs]
        kinds = {engine.get_tensor_dtype(n) for n in names}
        if (len(inputs), len(outputs)) != (1, 1) or kinds != {self._trt.DataType.FLOAT}:
            raise ValueError(f"the plan has {names}; one float32 input and output is wanted.")
        self.input_name, self.output_name = str(inputs[0]), str(outputs[0])
        smallest, _, largest = manifest.profiles[self.input_name]
        self._smallest, self._largest, self._shape = smallest[0], largest[0], largest[1:]
        self._context.set_input_shape(self.input_name, largest)
        made = tuple(self._context.get_tensor_shape(self.output_name))
        self._input = self._device.allocate(4 * int(np.prod(largest)))
        self._output = self._device.allocate(4 * int(np.prod(made)))
        self._context.set_tensor_address(self.input_name, self._input)
        self._context.set_tensor_address(self.output_name, self._output)

    def _made(self, thing: Any, what: str) -> Any:
        if thing is None:
            raise ValueError(f"the library refused the {what}: {self._last()}")
        return thing

    def _hear(self, message: Message) -> None:
        if message.severity <= 1:
            self._errors.append(message.text)

    def _last(self) -> str:
        return self._errors[-1] if self._errors else "it gave no reason"
