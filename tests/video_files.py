"""Small real video files of the kinds that users bring, written with PyAV alone."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

RED, GREEN, GREY = (200, 40, 40), (40, 200, 40), (120, 120, 120)


def scene(height: int = 160, width: int = 96) -> np.ndarray:
    """What a person sees upright: red along the top, green down the left, grey elsewhere."""
    picture = np.full((height, width, 3), GREY, np.uint8)
    picture[:, : width // 6] = GREEN
    picture[: height // 6] = RED
    return picture


def edges(picture: np.ndarray) -> dict[str, str]:
    """Colours in the middle of each edge."""
    height, width = picture.shape[:2]
    places = {
        "top": picture[height // 16, width // 2],
        "left": picture[height // 2, width // 16],
        "bottom": picture[-1 - height // 16, width // 2],
        "right": picture[height // 2, -1 - width // 16],
    }
    names = {"red": RED, "green": GREEN, "grey": GREY}
    return {
        edge: min(names, key=lambda name: np.abs(colour.astype(int) - names[name]).sum())
        for edge, colour in places.items()
    }


UPRIGHT = {"top": "red", "left": "green", "bottom": "grey", "right": "grey"}


def greys(levels: Iterable[int], height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Pictures of one grey each."""
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


def yuv(picture: np.ndarray, pix_fmt: str = "yuv420p", matrix: int = 1, full: bool = False) -> av.VideoFrame:
    """A picture in YUV by the matrix of H.273 named."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    matrix = {1: Colorspace.ITU709, 5: Colorspace.ITU601, 9: Colorspace.BT2020}[matrix]
    return frame.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=2 if full else 1)


def write(
    path: Path,
    frames: Sequence[av.VideoFrame | np.ndarray],
    *,
    rate: int = 8,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    tags: tuple[int, int, int, int] | None = (1, 1, 1, 1),
    aspect: Fraction | None = None,
    matrix: Sequence[int] | None = None,
    times: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write frames as one track.

    Args:
        path: its suffix names the container.
        frames: as encoded; arrays become yuv420p of BT.709.
        rate: frames a second, and ticks a second of ``times``.
        codec: of PyAV's encoders.
        options: of it.
        tags: matrix, primaries, transfer (H.273) and range (1 limited, 2 full) that the file says; None: it says none.
        aspect: width over height of a pixel.
        matrix: display matrix of nine numbers.
        times: of the frames; None: one after the other.
        container_options: of the muxer.
    """
    frames = [frame if isinstance(frame, av.VideoFrame) else yuv(frame) for frame in frames]
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        exact = {"crf": "1", "bf": "0"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=rate, options={**exact, **(options or {})})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        context = stream.codec_context
        if tags is not None:
            context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = (number if times is None else times[number]), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def patched(path: Path, box: bytes, offset: int, values: bytes) -> Path:
    """Write over a file's bytes, ``offset`` behind the first occurrence of a box's name."""
    data = bytearray(path.read_bytes())
    place = data.index(box) + len(box) + offset
    data[place : place + len(values)] = values
    path.write_bytes(data)
    return path


def numbers(*values: int) -> bytes:
    """32-bit numbers as boxes hold them."""
    return struct.pack(f">{len(values)}i", *values)


def element(name: int, content: bytes) -> bytes:
    """An element of Matroska, its length in eight bytes."""
    return name.to_bytes((name.bit_length() + 7) // 8, "big") + (len(content) | 1 << 56).to_bytes(8, "big") + content


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """The names and contents of elements, one behind the other, all of known lengths."""
    found = []
    while data:
        name_bytes = 9 - data[0].bit_length()
        length_bytes = 9 - data[name_bytes].bit_length()
        start = name_bytes + length_bytes
        length = int.from_bytes(data[name_bytes:start], "big") - (1 << 7 * length_bytes)
        found.append((int.from_bytes(data[:name_bytes], "big"), data[start : start + length]))
        data = data[start + length :]
    return found


def cropped_matroska(path: Path, *videos: dict[int, int]) -> Path:
    """Write numbers into the Video elements of a Matroska file's tracks, by name, in place of its own of that name."""
    waiting = list(videos)

    def video(content: bytes) -> bytes:
        told = waiting.pop(0)
        kept = b"".join(element(name, part) for name, part in elements(content) if name not in told)
        return kept + b"".join(element(name, value.to_bytes(4, "big")) for name, value in told.items())

    def rebuilt(name: int, content: bytes) -> bytes:
        if name == 0xE0:
            return element(name, video(content))
        if name in (0x18538067, 0x1654AE6B, 0xAE):  # segment, tracks, track; without its indices of places
            inner = [part for part in elements(content) if part[0] not in (0x114D9B74, 0x1C53BB6B)]
            return element(name, b"".join(rebuilt(*part) for part in inner))
        return element(name, content)

    path.write_bytes(b"".join(rebuilt(*part) for part in elements(path.read_bytes())))
    return path


def with_clean_aperture(path: Path, *aperture: int, entry: bytes = b"avc1", track: int = 0) -> Path:
    """Put a ``clap`` of eight numbers behind the others in the sample entry of an MP4's video ``track``, from 0."""
    box = struct.pack(">I4s8i", 40, b"clap", *aperture)
    data = path.read_bytes()
    assert data.index(b"mdat") < data.index(b"moov"), "its places of samples would be others"
    place = data.index(b"moov")
    for _ in range(track + 1):
        place = data.index(entry, data.index(b"stsd", place + 4))
    end = place - 4 + int.from_bytes(data[place - 4 : place], "big")
    changed = bytearray(data)
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", entry):
        at = data.rindex(name, 0, place + 4) - 4
        changed[at : at + 4] = struct.pack(">I", int.from_bytes(data[at : at + 4], "big") + len(box))
    path.write_bytes(bytes(changed[:end]) + box + data[end:])
    return path
