"""The little of CUDA's driver interface that running a plan needs: memory, copies, one stream.

Every machine with an NVIDIA driver has this library, so a serving pod needs neither torch nor the
CUDA toolkit to run an engine.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LIBRARY = "libcuda.so.1"
_NAN_BITS = 0x7FC00000

_Size = ctypes.c_size_t
_Address = ctypes.c_uint64
_Handle = ctypes.c_void_p
_ARGUMENTS: dict[str, list[Any]] = {
    "cuInit": [ctypes.c_uint],
    "cuDeviceGetCount": [ctypes.POINTER(ctypes.c_int)],
    "cuDeviceGet": [ctypes.POINTER(ctypes.c_int), ctypes.c_int],
    "cuDevicePrimaryCtxRetain": [ctypes.POINTER(_Handle), ctypes.c_int],
    "cuCtxSetCurrent": [_Handle],
    "cuStreamCreate": [ctypes.POINTER(_Handle), ctypes.c_uint],
    "cuStreamSynchronize": [_Handle],
    "cuMemAlloc_v2": [ctypes.POINTER(_Address), _Size],
    "cuMemGetInfo_v2": [ctypes.POINTER(_Size), ctypes.POINTER(_Size)],
    "cuMemcpyHtoDAsync_v2": [_Address, _Handle, _Size, _Handle],
    "cuMemcpyDtoHAsync_v2": [_Handle, _Address, _Size, _Handle],
    "cuMemsetD32Async": [_Address, ctypes.c_uint, _Size, _Handle],
    "cuGetErrorString": [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)],
}


class NoDevice(RuntimeError):
    """There is no CUDA device to run on. The text is the reason in one sentence."""


class Device:
    """The first CUDA device, its context current in the calling thread, with one stream."""

    def __init__(self) -> None:
        """Take the device.

        Raises:
            NoDevice: No driver, no device, or the driver refuses.
        """
        self._library = _loaded()
        self._call("cuInit", 0)
        count, device = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        if not count.value:
            raise NoDevice("the NVIDIA driver sees no device")
        self._context, stream = _Handle(), _Handle()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        # The primary context is the one that TensorRT uses as well.
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.use()
        self._call("cuStreamCreate", ctypes.byref(stream), 1)
        self._stream = stream

    def use(self) -> None:
        """Make the context current in the calling thread; a server may answer in another one."""
        self._call("cuCtxSetCurrent", self._context)

    @property
    def stream(self) -> int:
        """The stream's handle."""
        return int(self._stream.value or 0)

    def free_bytes(self) -> int:
        """Return how much memory of the device is free."""
        free, total = _Size(), _Size()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return int(free.value)

    def allocate(self, size: int) -> int:
        """Return the address of so many bytes; they are this process's until it ends."""
        address = _Address()
        self._call("cuMemAlloc_v2", ctypes.byref(address), max(size, 1))
        return int(address.value)

    def upload(self, array: NDArray[Any], address: int) -> None:
        """Copy a contiguous array to the device, in the order of the stream."""
        self._call("cuMemcpyHtoDAsync_v2", address, array.ctypes.data, array.nbytes, self._stream)

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Copy to a contiguous array, in the order of the stream."""
        self._call("cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, self._stream)

    def poison(self, address: int, floats: int) -> None:
        """Fill memory with NaN: what nobody writes is then no old answer."""
        self._call("cuMemsetD32Async", address, _NAN_BITS, floats, self._stream)

    def wait(self) -> None:
        """Wait until the stream has done all it was given."""
        self._call("cuStreamSynchronize", self._stream)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise NoDevice(f"the NVIDIA driver refused {name}: {self._reason(status)}")

    def _reason(self, status: int) -> str:
        said = ctypes.c_char_p()
        self._library.cuGetErrorString(status, ctypes.byref(said))
        return f"{(said.value or b'unknown').decode()} (error {status})"


def _loaded() -> Any:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as e:
        raise NoDevice("there is no NVIDIA driver on this machine") from e
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    return library


def padded(x_n: NDArray[np.float32], least: int) -> NDArray[np.float32]:
    """Return inputs with the last one repeated until there are at least so many.

    >>> padded(np.ones((2, 3), np.float32), 4).shape
    (4, 3)
    """
    short = least - len(x_n)
    return x_n if short <= 0 else np.concatenate([x_n, np.repeat(x_n[-1:], short, axis=0)])
