"""Arrays in npz files, whose sizes are checked before memory is taken (no torch)."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from threading import Lock

import numpy as np

from prophy.files import open_regular

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
#: A header is Python source to numpy, and Python 3.11 cannot parse in several threads at once (gh-106905).
_PARSING = Lock()


def read_npz(path: Path, most_bytes: int) -> dict[str, np.ndarray]:
    """The arrays of an npz file without pickles.

    Args:
        path: of the file.
        most_bytes: of all arrays together, as the file declares them.

    Raises:
        ValueError: no npz file, arrays that are larger, or not of the size that they declare. One line.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            if sum(item.file_size for item in archive.infolist()) > most_bytes:
                raise ValueError(f"it declares more than {most_bytes >> 20} MiB")
            return {item.filename.removesuffix(".npy"): _read(archive, item) for item in archive.infolist()}
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
            left = memoryview(array.view(np.uint8))
            while left and (taken := file.readinto(left)):
                left = left[taken:]
            if left:
                raise ValueError(f"{item.filename} is cut off")
            file.read(1)  # at the end the zip compares its checksum
    return array.reshape(shape, order="F" if fortran_order else "C")
