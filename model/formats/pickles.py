"""Pickles of arrays and plain data, read without running what they name.

A pickle is a program: it may call any function that can be imported. Here only a few names are
allowed, with which numpy and torch rebuild arrays; any other is refused before it is imported.
"""

from __future__ import annotations

import collections
import io
import pickle
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._utils import _rebuild_tensor_v2

from model.formats.format_error import FormatError, opening

_ZIP_MAGIC = b"PK"
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)
"""What unpickling a damaged file raises, from its documentation and by trial."""


def load_pickle(path: Path) -> object:
    """The arrays, tensors, containers, numbers and strings of a pickle, or of a file of torch.save.

    Pickles of Python 2 have their strings read as Latin-1. Raises FormatError for a missing or
    damaged file, and for one that names anything that is neither plain data nor an array.
    """
    with _as_format_error(path), path.open("rb") as file, warnings.catch_warnings():
        # torch warns of its own old names and of protocols, which a reader cannot change.
        warnings.simplefilter("ignore")
        if file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC:
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
        file.seek(0)
        return _Unpickler(file, path).load()


def as_array(value: object) -> np.ndarray[Any, Any] | None:
    """The numbers of an array or a tensor; None of anything else, and of sparse or meta tensors."""
    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_meta:
            return None
        if value.dtype in (torch.bfloat16, torch.float16):
            value = value.float()
        return np.asarray(value.detach().resolve_conj().resolve_neg().cpu().numpy())
    return value if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" else None


class _Ndarray:
    """Stands for numpy.ndarray: a pickle names it as an argument, and is not to call it."""


def _reconstruct(kind: object, shape: object, _: object) -> Any:
    """As numpy's: an empty array, whose type and contents follow."""
    if kind is not _Ndarray or shape != (0,):
        raise pickle.UnpicklingError("an array of an unknown kind")
    return np.ndarray((0,), np.int8)


def _frombuffer(buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> Any:
    """As numpy's, a copy: the bytes of a pickle cannot be written to."""
    return np.frombuffer(buffer, dtype).reshape(shape, order=order).copy()


def _scalar(dtype: np.dtype[Any], value: bytes = b"") -> Any:
    """As numpy's, for numbers alone."""
    if dtype.hasobject:
        raise pickle.UnpicklingError("a number that is an object")
    return np.frombuffer(value, dtype, 1)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How a pickle of protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes in {encoding}")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """How a pickle of protocol 2 writes none."""
    return b""


def _storage(contents: bytes) -> Any:
    """As torch's, but without what its legacy format would let a file run."""
    return torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): _Ndarray,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    # Python 2 and early protocols have no opcode for these.
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): _storage,
}
for _core in ("numpy.core", "numpy._core"):
    _KNOWN |= {
        (f"{_core}.multiarray", "_reconstruct"): _reconstruct,
        (f"{_core}.multiarray", "scalar"): _scalar,
        (f"{_core}.numeric", "_frombuffer"): _frombuffer,
    }


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BufferedReader, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        target = _KNOWN.get((module, name))
        if target is None:
            raise FormatError(f"{self._path}: names {module}.{name}, which is not read from files")
        return target


@contextmanager
def _as_format_error(path: Path) -> Iterator[None]:
    try:
        with opening(path):
            yield
    except FormatError:
        raise
    except _DAMAGED as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise FormatError(f"{path}: not a readable pickle ({why})") from None
