"""Motion pickles, read without running them.

A pickle is a program that may call any function by name. This reader knows four names, all of arrays (ndarray, dtype,
scalar, joblib's array wrapper), and gives each a plain stand-in of its own: no code of the file, of numpy or of joblib
runs before shape, type and size of an array have been checked. Every other name is refused, and so are object arrays.

Read are plain pickles of protocol 0 to 5 and joblib files, also compressed by zlib, gzip, bz2 or lzma.
"""

from __future__ import annotations

import bz2
import io
import lzma
import math
import pickle
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

MOST_BYTES = 2**31  # of a file, unpacked: ten hours of motion; beyond it is a mistake or a decompression bomb
KINDS = "biufUS"  # of array elements: booleans, numbers, text


class PickleError(ValueError):
    """A pickle cannot be read, or asks for more than arrays and plain containers."""


def read_pickle(path: Path) -> Any:
    """What the pickle or joblib file holds: dictionaries, lists, tuples, numbers, text and arrays.

    Raises PickleError with the file, and the name of what it asked for where that is refused."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise PickleError(f"is larger than {MOST_BYTES} bytes")
        content = _unpacked(path.read_bytes())
        return _plain(_Reader(io.BytesIO(content)).load(), {}, 0)
    except PickleError as error:
        raise PickleError(f"{path}: {_line(error)}") from error
    except (pickle.UnpicklingError, EOFError) as error:
        raise PickleError(f"{path}: is not a whole pickle, perhaps it was cut off ({_line(error)})") from error
    # A damaged pickle misuses the machine in every way that Python has a word for.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        raise PickleError(f"{path}: is not a sound pickle ({type(error).__name__}: {_line(error)})") from error


def _line(error: Exception) -> str:
    """What an error says, on one line and not too long: parts of it come from the file."""
    return "".join(sign if sign.isprintable() else " " for sign in str(error))[:300]


def _unpacked(content: bytes) -> bytes:
    if content[:1] == b"\x78":  # zlib
        unpacker: Any = zlib.decompressobj()
    elif content[:2] == b"\x1f\x8b":  # gzip
        unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    elif content[:3] == b"BZh":
        unpacker = bz2.BZ2Decompressor()
    elif content[:6] == b"\xfd7zXZ\x00" or content[:3] == b"\x5d\x00\x00":
        unpacker = lzma.LZMADecompressor()
    else:
        return content
    try:
        result = unpacker.decompress(content, MOST_BYTES)
    except (zlib.error, OSError, EOFError, lzma.LZMAError) as error:
        raise PickleError(f"cannot be unpacked ({error})") from error
    if not unpacker.eof:
        raise PickleError(f"cannot be unpacked: it was cut off, or holds more than {MOST_BYTES} bytes")
    return result


class _Dtype:
    """Stands for numpy.dtype: the name of an element type, checked before numpy sees it."""

    def __init__(self, name: str, *_: Any):
        self.name, self.order = str(name), "="

    def set(self, state: Any) -> None:
        self.order = str(state[1])

    def real(self) -> np.dtype:
        # A name that numpy reads as a structure or an object is not among these.
        if self.name[:1] not in KINDS or not self.name[1:].isdigit():
            raise PickleError(f"holds an array of {self.name!r}: only numbers and text are admitted")
        return np.dtype((self.order if self.order in ("<", ">") else "=") + self.name)


class _Array:
    """Stands for numpy.ndarray, numpy's rebuilding function and joblib's wrapper."""

    def __init__(self, *_: Any):
        self.shape: Any = ()
        self.dtype: Any = None
        self.fortran = False
        self.data: Any = None
        self.padded = False

    def set(self, state: Any) -> None:
        if isinstance(state, dict):  # joblib: the bytes follow in the file
            self.shape, self.dtype, self.fortran = state["shape"], state["dtype"], state["order"] == "F"
            self.padded = state.get("numpy_array_alignment_bytes") is not None
        else:  # numpy: version, shape, dtype, fortran, bytes
            *_, self.shape, self.dtype, self.fortran, self.data = state

    def size(self) -> int:
        """In bytes."""
        if not all(isinstance(n, int) and n >= 0 for n in self.shape):
            raise PickleError(f"holds an array of shape {self.shape}")
        return math.prod(self.shape) * self._dtype().itemsize

    def real(self) -> np.ndarray:
        dtype = self._dtype()  # first: an array of objects has no bytes, and shall be called what it is
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data  # protocol 2 of Python 2
        if not isinstance(data, bytes | bytearray) or len(data) != self.size():
            raise PickleError(f"holds an array of shape {self.shape} without the bytes for it")
        return np.frombuffer(data, dtype).reshape(self.shape, order="F" if self.fortran else "C").copy()

    def _dtype(self) -> np.dtype:
        if not isinstance(self.dtype, _Dtype):
            raise PickleError("holds an array without an element type")
        return self.dtype.real()


def _scalar(dtype: _Dtype, data: Any) -> _Array:
    array = _Array()
    array.set((1, (), dtype, False, data))
    return array


def _from_buffer(data: Any, dtype: _Dtype, shape: Any, order: str) -> _Array:
    array = _Array()
    array.set((1, shape, dtype, order == "F", data))
    return array


def _encode(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise PickleError(f"asks for the codec {codec!r}: only latin1 is admitted")
    return text.encode("latin1")


def _stand_in(module: str, name: str) -> Any:
    if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        return {"_reconstruct": _Array, "scalar": _scalar}.get(name)
    if module in ("numpy.core.numeric", "numpy._core.numeric"):
        return {"_frombuffer": _from_buffer}.get(name)
    return {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Array,
        ("collections", "OrderedDict"): dict,
        ("_codecs", "encode"): _encode,
    }.get((module, name))


class _Reader(pickle._Unpickler):  # type: ignore[attr-defined]  # the Python one, which does not read ahead
    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="latin1")
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        stand_in = _stand_in(module, name)
        if stand_in is None:
            raise PickleError(
                f"asks for {module}.{name}, which is refused: only arrays and plain containers are admitted"
            )
        return stand_in

    def load_build(self) -> None:
        state = self.stack.pop()  # type: ignore[attr-defined]
        target = self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(target, _Array | _Dtype):
            raise PickleError(f"sets the state of a {type(target).__name__}, which is refused")
        target.set(state)
        if isinstance(target, _Array) and isinstance(state, dict):
            if target.padded:
                self._file.read(self._file.read(1)[0])
            size = target.size()
            target.data = self._file.read(size)
            if len(target.data) != size:
                raise EOFError(f"an array of shape {target.shape} ends early")

    dispatch[pickle.BUILD[0]] = load_build  # type: ignore[assignment]  # the table holds functions of any reader


def _plain(value: Any, done: dict[int, Any], depth: int) -> Any:
    """The same with real arrays in place of the stand-ins; each part once, however often it is named."""
    if id(value) in done:
        return done[id(value)]
    if depth > 50:
        raise PickleError("holds containers in containers, more than 50 deep")
    if isinstance(value, _Array):
        result: Any = value.real()
        result = result[()] if result.ndim == 0 else result
    elif isinstance(value, _Dtype):
        result = value.real()
    elif isinstance(value, dict):
        result = {key: _plain(item, done, depth + 1) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        result = type(value)(_plain(item, done, depth + 1) for item in value)
    elif value is None or isinstance(value, bool | int | float | str | bytes | bytearray):
        result = value
    else:
        raise PickleError(f"holds a {type(value).__name__}: only arrays and plain containers are admitted")
    done[id(value)] = result
    return result
