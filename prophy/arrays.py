"""Arrays in npz files, whose sizes are checked before memory is taken (no torch)."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np

from prophy.files import check_file, open_regular, replacing

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
#: A header is Python source to numpy, and Python 3.11 cannot parse in several threads at once (gh-106905).
_PARSING = Lock()


def read_npz(path: Path, most_bytes: int, only: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file without pickles.

    Args:
        path: of the file.
        most_bytes: of all arrays together, as the file declares them.
        only: the name of one array, if no other is wanted.

    Raises:
        ValueError: no npz file, arrays that are larger, or not of the size that they declare. One line.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            if sum(item.file_size for item in archive.infolist()) > most_bytes:
                raise ValueError(f"it declares more than {most_bytes >> 20} MiB")
            items = {item.filename.removesuffix(".npy"): item for item in archive.infolist()}
            wanted = items if only is None else {only: items[only]}
            return {name: _read(archive, item) for name, item in wanted.items()}
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on damaged data
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path.name} is not a valid npz file: {reason}") from error


def _read(archive: zipfile.ZipFile, item: zipfile.ZipInfo) -> np.ndarray:
    """One array. Memory is taken for what its header declares: the zip must hold as much."""
    with archive.open(item) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"{item.filename} is of version {version}")
        with _PARSING:
            shape, fortran_order, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            raise ValueError(f"{item.filename}: Object arrays are not read")
        count = math.prod(shape)
        if file.tell() + count * dtype.itemsize != item.file_size:
            raise ValueError(f"{item.filename} is not of the size that it declares")
        array = np.empty(count, dtype)
        if array.nbytes:
            left = array.view(np.uint8).data
            while left and (taken := cast(io.BufferedIOBase, file).readinto(left)):
                left = left[taken:]
            if left:
                raise ValueError(f"{item.filename} is cut off")
            file.read(1)  # at the end the zip compares its checksum
    return array.reshape(shape, order="F" if fortran_order else "C")


def read_npy(path: Path, dtype: Any = None, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """The array of an npy file, memory-mapped and without pickles.

    Args:
        path: of the file.
        dtype, shape: that it must have; None for any.

    Raises:
        ValueError: no npy file, or another array. One line.
        OSError: it cannot be opened.
    """
    try:
        with _PARSING:
            array = np.lib.format.open_memmap(check_file(path), mode="r")
    except OSError:
        raise
    except Exception as error:  # a damaged header alone raises four kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path.name} is not a valid npy file: {reason}") from error
    if array.dtype.hasobject or not array.ndim:
        raise ValueError(f"{path.name} holds no numbers")
    if (dtype is not None and array.dtype != dtype) or (shape is not None and array.shape != shape):
        raise ValueError(f"{path.name} holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    return array


# --- recordings: arrays with a description ----------------------------------------------------------------------------


def write_described(path: Path, about: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Write arrays and what they are of, as JSON; an existing file is replaced whole or not at all."""
    with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)


def read_described(path: Path, most_bytes: int, names: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What :func:`write_described` wrote: the description, and the arrays of just these names.

    Raises:
        ValueError: as :func:`read_npz`; arrays that are missing or unknown.
        RecursionError: a description that is nested without end.
    """
    arrays = read_npz(path, most_bytes)
    if arrays.keys() != {"about", *names}:
        raise ValueError("arrays are missing or unknown")
    return json.loads(str(arrays.pop("about"))), arrays


def read_description(path: Path, most_bytes: int) -> dict[str, Any]:
    """What :func:`read_described` gives first, without the arrays; raises as it does."""
    return json.loads(str(read_npz(path, most_bytes, only="about")["about"]))


@contextmanager
def damage_named(path: Path, what: str) -> Iterator[None]:
    """Whatever is wrong with a file's content, inside the block, as one line: it is not a valid ``what``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: anything else.
    """
    if not path.exists():
        raise FileNotFoundError(f"no {what} at {path}")
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ValueError(f"{path.name} is not a valid {what}: {' '.join(str(error).split())[:200]}") from error
    except Exception as error:  # such as nesting without end
        raise ValueError(f"{path.name} is not a valid {what}: {type(error).__name__}") from error


def check_axes(holder: object, layout: Mapping[str, tuple[str, Any]], sizes: dict[str, int], what: str) -> None:
    """Check arrays that are attributes: their type, and that axes of one name are of one size.

    Args:
        holder: whose attributes they are.
        layout: of each array by name, a letter for each axis, and the type.
        sizes: of the axes known beforehand; the others are added.
        what: they are of, for the message.

    Raises:
        ValueError: an array that does not fit. One line.
    """
    for name, (axes, dtype) in layout.items():
        array = getattr(holder, name)
        if array.dtype != dtype or array.ndim != len(axes):
            raise ValueError(f"{name} must be {np.dtype(dtype)} with axes {axes}: the {what} is damaged")
        for axis, size in zip(axes, array.shape, strict=True):
            if sizes.setdefault(axis, size) != size or size < 1:
                raise ValueError(f"{name} has {size} along {axis}, not {sizes[axis]}: the {what} is damaged")
