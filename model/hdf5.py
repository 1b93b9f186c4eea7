"""Opens HDF5 files of other programs: joined by virtual datasets and external links, with strings
of any kind, damaged, or missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np

from model.hdf5_check import DamagedFileError, check_readable

_DEEPEST = 8
"""Virtual datasets of virtual datasets."""
_SURROGATE = re.compile("[\udc80-\udcff]")


class DescriptorFileError(ValueError):
    """A file cannot be read as descriptors. The message names it and the reason."""


@contextmanager
def open_hdf5(path: Path, mode: str) -> Iterator[h5py.File]:
    """Stays open, unless what is done with it here fails: a file that was left open would be found
    again, as it was, by whoever opens that path next. Raises DescriptorFileError."""
    with as_descriptor_error(path), ExitStack() as unless_whole:
        check_plain(path)
        check_readable(path)
        yield unless_whole.enter_context(h5py.File(path, mode))
        unless_whole.pop_all()


@contextmanager
def as_descriptor_error(path: Path) -> Iterator[None]:
    """What h5py raises for a missing or damaged file, by trial."""
    try:
        yield
    except FileNotFoundError:
        raise DescriptorFileError(f"{path}: no such file") from None
    except DescriptorFileError:
        raise
    except (OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise DescriptorFileError(f"{path}: not a readable HDF5 file ({error})") from None


def check_plain(path: Path) -> None:
    """Refuses pipes, which would block when they are opened. Raises DescriptorFileError."""
    if path.exists() and not path.is_file():
        raise DescriptorFileError(f"{path}: no plain file")


def dataset_of(file: h5py.File, name: str) -> h5py.Dataset | None:
    """None if there is none. Raises DescriptorFileError for what is no dataset, and where files
    that it is joined of are not there."""
    item = file.get(name)
    if item is None and isinstance(link := file.get(name, getlink=True), h5py.ExternalLink):
        raise DescriptorFileError(
            f"{file.filename}: `{name}` is `{link.path}` of {link.filename}, which is not there"
        )
    if item is None:
        return None
    if not isinstance(item, h5py.Dataset):
        raise DescriptorFileError(f"{file.filename}: `{name}` is no dataset")
    bytes_of(item)
    return item


def bytes_of(dataset: h5py.Dataset, depth: int = 0) -> int:
    """Bytes of the files that hold a dataset's data, each counted once. Raises DescriptorFileError
    if one of a virtual dataset's is not there: HDF5 reads zeros in its place."""
    own = Path(dataset.file.filename)
    if not dataset.is_virtual:
        return own.stat().st_size
    if depth == _DEEPEST:
        raise DescriptorFileError(f"{own}: its virtual datasets are nested too deep")
    total = 0
    for name, path in {(s.dset_name, s.file_name) for s in dataset.virtual_sources()}:
        if path == ".":
            total += bytes_of(dataset.file[name], depth + 1)
            continue
        shard = _shard(own, path)
        check_plain(shard)
        try:
            check_readable(shard)
            with h5py.File(shard, "r") as file:
                total += bytes_of(file[name], depth + 1)
        except (OSError, LookupError, DamagedFileError) as error:
            raise DescriptorFileError(
                f"{own}: joined of {path}, whose `{name}` cannot be read ({error})"
            ) from None
    return total


def _shard(own: Path, name: str) -> Path:
    """Finds a file where HDF5 looks: at the path itself, beside the file that names it, and, for a
    path that is no longer there, for the bare name beside that file. Raises DescriptorFileError."""
    path = Path(name)
    candidates = [own.parent / path, path, own.parent / path.name]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise DescriptorFileError(f"{own}: joined of {name}, which is not there")


def read_ids(dataset: h5py.Dataset) -> list[str]:
    """Strings of any kind, or numbers. Bytes that are no UTF-8 become `=` and their hex, as in the
    names of image files. Raises DescriptorFileError, also for an id that comes twice."""
    path = dataset.file.filename
    if dataset.ndim != 1:
        raise DescriptorFileError(f"{path}: `ids` is no dataset of 1 dimension")
    # A damaged size would request more memory than any machine has.
    if dataset.shape[0] > bytes_of(dataset):
        raise DescriptorFileError(f"{path}: claims {dataset.shape[0]} ids, more than it has bytes")
    if h5py.check_string_dtype(dataset.dtype) is not None:
        ids = [_printable(name) for name in dataset.asstr("utf-8", "surrogateescape")[:]]
    elif dataset.dtype.kind in "iu":
        ids = [str(number) for number in dataset[:]]
    else:
        raise DescriptorFileError(f"{path}: `ids` are no strings")
    if len(set(ids)) < len(ids):
        ((repeated, _),) = Counter(ids).most_common(1)
        raise DescriptorFileError(f"{path}: id {repeated!r} occurs twice")
    return ids


def attribute(file: h5py.File, name: str) -> str | None:
    """A string attribute; h5py, MATLAB and others store strings in different ways."""
    value = file.attrs.get(name)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.flat[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    return _printable(value) if isinstance(value, str) else None


def _printable(text: str) -> str:
    return _SURROGATE.sub(lambda byte: f"={ord(byte[0]) & 0xFF:02X}", text)
