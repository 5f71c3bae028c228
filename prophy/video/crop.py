"""What a container says is to be cut from every decoded picture, which neither FFmpeg's decoders nor PyAV do.

Of MP4 and MOV the clean aperture (``clap``; ISO/IEC 14496-12, 12.1.4), of Matroska and WebM PixelCropLeft and its like
(RFC 9559, 5.1.4.1.28). What a coded stream itself says, such as the conformance window of HEVC, the decoder cuts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

from prophy.video.boxes import read_headers

_SAMPLE_ENTRY = 86  # bytes of a video's sample entry before its boxes
_MOST_BYTES = 16 * 1024**2  # of a Matroska file's tracks
_MOST_ELEMENTS = 500_000  # at its top level
_SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_TRACK_TYPE, _IS_VIDEO = 0x83, 1
_SIDES = (0x54CC, 0x54BB, 0x54DD, 0x54AA)  # left, top, right, bottom


class Crop(NamedTuple):
    """Pixels that are cut from the sides of a decoded picture."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what is left of a picture.

        Raises:
            ValueError: nothing is left, or more than there was.
        """
        left = height - self.top - self.bottom, width - self.left - self.right
        if min(self) < 0 or min(left) < 1:
            raise ValueError(f"is to be cut to a part that is none of its {width}×{height} pixels: re-mux it")
        return left


def declared_crop(path: Path, form: str, track: int, place: int, height: int, width: int) -> Crop:
    """What the container of a file says of one of its videos.

    Args:
        path: of the file.
        form: FFmpeg's name of the container.
        track: its number of the video, in MP4 and MOV.
        place: of the video among the file's, from 0, in Matroska.
        height: of the decoded picture.
        width: of the decoded picture.

    Raises:
        ValueError: a part that is none of the picture. It says why, and the cure.
        OSError: the file cannot be read.
    """
    if "matroska" in form:
        crops = _of_matroska(path)
        crop = crops[place] if place < len(crops) else Crop()
    elif "mp4" in form:
        crop = _of_mp4(path, track, height, width)
    else:
        return Crop()
    crop.size(height, width)
    return crop


# --- MP4, MOV ---------------------------------------------------------------------------------------------------------


def _of_mp4(path: Path, track: int, height: int, width: int) -> Crop:
    aperture = next((found for header in read_headers(path) or () for found in _apertures(header, track)), None)
    if aperture is None:
        return Crop()
    try:
        shown_width, shown_height, right_by, down_by = (
            Fraction(*pair) for pair in zip(aperture[::2], aperture[1::2], strict=True)
        )
    except ZeroDivisionError:
        return Crop()  # players leave it alone
    # Its centre lies so far from the picture's.
    left, top = (width - shown_width) / 2 + right_by, (height - shown_height) / 2 + down_by
    first_x, first_y = round(left), round(top)
    return Crop(first_x, first_y, width - first_x - round(shown_width), height - first_y - round(shown_height))


def _apertures(header: bytes, track: int) -> Iterator[tuple[int, ...]]:
    """The eight numbers of the clean aperture of a track's first sample entry."""
    for part in header.split(b"trak")[1:]:
        head, table = part.find(b"tkhd"), part.find(b"stsd")
        if min(head, table) < 0 or _number(part, head + (24 if part[head + 4 : head + 5] == b"\1" else 16)) != track:
            continue
        entry = table + 12  # behind version, flags and count
        end = min(entry + _number(part, entry), len(part))
        place = entry + _SAMPLE_ENTRY
        while place + 8 <= end and (length := _number(part, place)) >= 8:
            if part[place + 4 : place + 8] == b"clap" and length >= 40:
                # Widths and heights, and all denominators, are unsigned; offsets are not.
                yield struct.unpack_from(">IIIIiIiI", part, place + 8)
            place += length


def _number(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 4], "big")


# --- Matroska, WebM ---------------------------------------------------------------------------------------------------


def _of_matroska(path: Path) -> list[Crop]:
    """Of every video track, in their order; none where no tracks can be found."""
    with open(path, "rb") as file:
        tracks = _tracks(file, path.stat().st_size)
    crops = []
    for name, track in _elements(tracks):
        parts = dict(_elements(track)) if name == _TRACK else {}
        if int.from_bytes(parts.get(_TRACK_TYPE, b""), "big") == _IS_VIDEO:
            sides = dict(_elements(parts.get(_VIDEO, b"")))
            crops.append(Crop(*(int.from_bytes(sides.get(side, b""), "big") for side in _SIDES)))
    return crops


def _tracks(file: BinaryIO, size: int) -> bytes:
    """The content of the first element of tracks, which may lie behind the clusters."""
    place = 0
    for _ in range(_MOST_ELEMENTS):
        file.seek(place)
        name, length, header = _header(file.read(12))
        if not header:
            return b""
        if name == _SEGMENT:
            place += header
        elif name == _TRACKS:
            file.seek(place + header)
            return file.read(min(size if length is None else length, _MOST_BYTES))
        elif length is None:  # a live recording's cluster; its tracks came before
            return b""
        else:
            place += header + length
        if place >= size:
            return b""
    return b""


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Names and contents of the elements in another's content."""
    place = 0
    while place < len(data):
        name, length, header = _header(data[place : place + 12])
        if not header:
            return
        end = len(data) if length is None else place + header + length
        yield name, data[place + header : end]
        place = end


def _header(data: bytes) -> tuple[int, int | None, int]:
    """An element's name, the length of its content, None where that is not known, and of its header; 0 for none.

    Both are numbers of as many bytes as the first has zeros before its first one, and one more (RFC 8794, 4).
    """
    at = 9 - data[0].bit_length() if data else 9
    if at > 4 or at >= len(data):
        return 0, None, 0
    length_bytes = 9 - data[at].bit_length()
    if length_bytes > 8 or at + length_bytes > len(data):
        return 0, None, 0
    most = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(data[at : at + length_bytes], "big") & most
    return int.from_bytes(data[:at], "big"), None if length == most else length, at + length_bytes
