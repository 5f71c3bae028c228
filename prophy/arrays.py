"""Arrays in npz files, whose sizes are checked before memory is taken (no torch)."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from prophy.files import open_regular


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
    """One array. Numpy takes the memory that its header declares before it reads: the zip must hold as much."""
    with archive.open(item) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"{item.filename} is of version {version}")
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise ValueError(f"{item.filename}: Object arrays are not read")
        count = 1
        for size in shape:
            count *= size
        if file.tell() + count * dtype.itemsize != item.file_size:
            raise ValueError(f"{item.filename} is not of the size that it declares")
    with archive.open(item) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
