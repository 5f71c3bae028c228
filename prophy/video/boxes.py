"""What an MP4 or MOV file declares about its samples, checked before FFmpeg takes memory for it.

FFmpeg makes entries of some 70 bytes for every sample that is declared, and twelve bytes can declare any number of
samples of one size: a file of 3 KB takes 4 GiB and ten seconds to open.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

_MOST_SAMPLES = 4_000_000  # 18 hours at 60 frames a second, and 280 MB of FFmpeg's entries
_MOST_ITEMS = 4096  # of a HEIF file
_MOST_BYTES = 64 * 1024**2
_MOST_BOXES = 500_000  # at the top level
#: Boxes at the top level into which FFmpeg looks for tables; the broken files it repairs have more than moov and moof.
_READ = frozenset(b"moov moof meta trak mdia minf stbl udta edts mvex traf wave gmhd dinf stsz stz2 trun hoov".split())


def impossible_tables(path: Path) -> str | None:
    """Why an MP4 or MOV file should not be opened, or None; also None for files of other kinds.

    The tables are found by their names and not by their places: FFmpeg is tolerant about places, too.

    Raises:
        OSError: the file cannot be read.
    """
    size, headers = path.stat().st_size, read_headers(path)
    if headers is None:
        return "has an index of more than 64 MiB, or in too many parts: cut it into shorter clips"
    tracks = [track for header in headers for track in header.split(b"trak")]
    fragments = sum(count for header in headers for count in _counts(header, b"trun", 4))
    if fragments + sum(_entries(track, size) for track in tracks) > _MOST_SAMPLES:
        return f"declares more than {_MOST_SAMPLES:,} samples: cut it into shorter clips"
    if any(b"cmov" in header for header in headers):
        return "has a compressed index (cmov), which is not read: re-mux it"
    # Versions 0 of the one and 0 and 1 of the other have 16 bits, which are never too many.
    items = [count for header in headers for count in _counts(header, b"iinf[^\0]", 3)]
    items += [count for header in headers for count in _counts(header, b"iloc[^\0\1]", 5)]
    if max(items, default=0) > _MOST_ITEMS:
        return f"declares more than {_MOST_ITEMS:,} pictures"
    return None


def read_headers(path: Path) -> list[bytes] | None:
    """The boxes at the top level that are no mere data, each as a whole; None if they are too much.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return _headers(file, path.stat().st_size)


def _headers(file: BinaryIO, size: int) -> list[bytes] | None:
    headers: list[bytes] = []
    total = place = 0
    for _ in range(_MOST_BOXES):
        file.seek(place)
        length, kind, inside = struct.unpack(">I4s8s", file.read(16).ljust(16, b"\0"))
        if length == 1:
            length = int.from_bytes(inside, "big")
        elif length == 0:
            length = size - place
        if length < 8:  # broken, or the end
            return headers
        if kind in _READ or inside[4:] in (b"mvhd", b"cmov"):
            total += min(length, size - place)
            if total > _MOST_BYTES:
                return None
            file.seek(place)
            headers.append(file.read(length))
        place += length
    return None


def _counts(header: bytes, kind: bytes, offset: int) -> list[int]:
    """The 32-bit numbers ``offset`` bytes behind each occurrence of a name, as far as there are."""
    places = (match.end() + offset for match in re.finditer(kind, header))
    return [int.from_bytes(header[place : place + 4], "big") for place in places]


def _entries(track: bytes, size: int) -> int:
    """Entries that FFmpeg makes for one track, at most."""
    samples = sum(_counts(track, b"stsz", 8) + _counts(track, b"stz2", 8))
    # Raw sound has a sample for each instant of a byte or more; FFmpeg makes an entry of up to 1,024.
    if b"soun" in track and b"vide" not in track and samples <= size and set(_counts(track, b"stts", 12)) == {1}:
        chunks = max(_counts(track, b"stco", 4) + _counts(track, b"co64", 4), default=0)
        return chunks * (_largest_chunk(track) // 1024 + 1)
    # Each piece of an edit list may be the whole track again, at a third of the memory.
    return samples + samples * (max([*_counts(track, b"elst", 4), 1]) - 1) // 3


def _largest_chunk(track: bytes) -> int:
    """Samples in a chunk, at most."""
    largest = 0
    for match in re.finditer(b"stsc", track):
        table = track[match.end() + 8 :]
        numbers = np.frombuffer(table, ">u4", len(table) // 4)
        count = int.from_bytes(track[match.end() + 4 : match.end() + 8], "big")
        largest = max([largest, *numbers[1::3][:count].tolist()])
    return largest
