"""Colours are read as a file means them: known patches, tagged in the ways that files are, come out as they went in."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import write, yuv

from prophy.video import UnreadableClip, picture_size, sample_frames

PATCH = (200, 60, 40)
PATCHES = (PATCH, (40, 120, 180), (60, 150, 60), (128, 128, 128), (20, 20, 20), (0, 0, 0))

BT2020 = np.array(((0.6274, 0.3293, 0.0433), (0.0691, 0.9195, 0.0114), (0.0164, 0.0880, 0.8956)))  # of BT.709
P3 = np.array(((0.8225, 0.1775, 0.0), (0.0332, 0.9668, 0.0), (0.0171, 0.0724, 0.9105)))
WHITE = 203.0  # cd/m² of a page's white


def seen(path: Path, side: int = 64) -> list[int]:
    """The colour in the middle of a clip."""
    assert picture_size(path)
    return sample_frames(path, 1, 8, side, side)[0, side // 2, side // 2].tolist()


def flat(colour: Sequence[int], height: int = 64, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def near(found: Sequence[int], expected: Sequence[int], levels: int = 3) -> bool:
    return all(abs(one - other) <= levels for one, other in zip(found, expected, strict=True))


def linear(value: float) -> float:
    """Light of an sRGB value of 0 to 255."""
    value /= 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def by_camera(value: float) -> float:
    """Light of a BT.709 value of 0 to 255."""
    value /= 255
    return value / 4.5 if value < 0.081 else ((value + 0.099) / 1.099) ** (1 / 0.45)


def of_camera(light: float) -> float:
    return 4.5 * light if light < 0.018 else 1.099 * light**0.45 - 0.099


def pq(light: float) -> float:
    """SMPTE ST 2084's signal of light in whites of a page."""
    power = (WHITE * light / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light: float) -> float:
    """ARIB STD-B67's signal: a page's white is 0.265 of the scene's light, three quarters of the signal (BT.2408)."""
    light *= 0.265
    return math.sqrt(3 * light) if light <= 1 / 12 else 0.17883277 * math.log(12 * light - 0.28466892) + 0.55991073


def wide(signal: Sequence[float], pix_fmt: str = "yuv420p10le") -> av.VideoFrame:
    """One colour of 10 bits in BT.2020's matrix, from R'G'B' of 0 to 1."""
    red, green, blue = signal
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    values = 64 + 876 * luma, 512 + 896 * (blue - luma) / 1.8814, 512 + 896 * (red - luma) / 1.4746
    frame = av.VideoFrame(64, 64, pix_fmt)
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(np.full(plane.buffer_size // 2, round(value), "<u2").tobytes())
    return frame


def hdr(path: Path, light: Sequence[float], signal: Callable[[float], float], transfer: int, **options) -> Path:
    """A clip of one colour, given as BT.709's light in whites of a page, as a phone or a camera stores HDR."""
    frame = wide([signal(max(0.0, one)) for one in BT2020 @ light])
    return write(path, [frame] * 4, tags=(9, 9, transfer, 1), **options)


HDR = pytest.mark.parametrize(("signal", "transfer"), [(pq, 16), (hlg, 18)], ids=["PQ", "HLG"])


# --- ordinary video


@pytest.mark.parametrize("colour", PATCHES)
@pytest.mark.parametrize(
    ("matrix", "tags", "pix_fmt", "full"),
    [
        (1, (1, 1, 1, 1), "yuv420p", False),
        (5, (6, 6, 6, 1), "yuv420p", False),
        (5, (5, 5, 4, 1), "yuv420p", False),
        (1, (1, 1, 1, 2), "yuv420p", True),
        (1, (1, 1, 13, 1), "yuv422p10le", False),
        (5, (2, 2, 2, 2), "yuvj420p", True),
    ],
    ids=["BT.709", "BT.601, 525 lines", "BT.601, 625 lines", "full range", "sRGB, 10-bit 4:2:2", "JPEG"],
)
def test_ordinary_video_keeps_its_colours(tmp_path: Path, colour, matrix: int, tags, pix_fmt: str, full: bool):
    frame = yuv(flat(colour), pix_fmt, matrix, full)
    codec = {"codec": "mjpeg", "options": {"qmin": "1", "qmax": "1"}} if pix_fmt == "yuvj420p" else {}
    assert near(seen(write(tmp_path / "a.mov", [frame] * 4, tags=tags, **codec)), colour)


@pytest.mark.parametrize(
    ("height", "width", "matrix"), [(720, 1280, 1), (1280, 720, 1), (480, 720, 5), (576, 704, 5), (64, 64, 5)]
)
def test_a_matrix_that_is_not_said_is_the_one_of_its_size(tmp_path: Path, height: int, width: int, matrix: int):
    """As players guess it: BT.709 for high definition, BT.601 below."""
    frame = yuv(flat(PATCH, height, width), "yuv420p", matrix)
    assert near(seen(write(tmp_path / "a.mp4", [frame] * 2, tags=None)), PATCH)


def test_rgb_is_not_read_through_a_matrix(tmp_path: Path):
    frame = av.VideoFrame.from_ndarray(flat(PATCH), format="rgb24").reformat(format="bgr0")
    assert seen(write(tmp_path / "a.mkv", [frame] * 4, codec="ffv1", tags=None)) == list(PATCH)


# --- wide gamuts


@pytest.mark.parametrize("colour", PATCHES)
@pytest.mark.parametrize("transfer", [1, 14])
def test_bt2020_of_ordinary_brightness_becomes_bt709(tmp_path: Path, colour, transfer: int):
    frame = wide([of_camera(light) for light in BT2020 @ [by_camera(value) for value in colour]])
    assert near(seen(write(tmp_path / "a.mp4", [frame] * 4, tags=(9, 9, transfer, 1))), colour)


@pytest.mark.parametrize("colour", PATCHES)
def test_p3_becomes_bt709(tmp_path: Path, colour):
    coded = np.array([of_camera(light) for light in P3 @ [by_camera(value) for value in colour]])
    frame = yuv(flat(np.rint(255 * coded).astype(np.uint8)), "yuv444p")
    assert near(seen(write(tmp_path / "a.mp4", [frame] * 4, tags=(1, 12, 1, 1))), colour)


# --- HDR


@HDR
@pytest.mark.parametrize("colour", PATCHES)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_what_is_no_brighter_than_ordinary_video_looks_like_it(tmp_path, colour, signal, transfer: int, suffix: str):
    path = hdr(tmp_path / f"a{suffix}", [linear(value) for value in colour], signal, transfer)
    assert near(seen(path), colour)


@HDR
def test_brighter_is_brighter_up_to_white_and_a_page_is_nearly_white(tmp_path: Path, signal, transfer: int):
    shown = []
    for number, light in enumerate((0.5, 0.75, 1, 1.5, 2, 3, 3.7)):
        (red, green, blue) = seen(hdr(tmp_path / f"{number}.mp4", [light] * 3, signal, transfer))
        assert max(red, green, blue) - min(red, green, blue) <= 2, "grey stays grey"
        shown.append(green)
    assert shown == sorted(set(shown)), "every step can be told from the one before"
    assert shown[0] == pytest.approx(188, abs=2)
    assert 236 <= shown[2] <= 246
    assert shown[-1] >= 252


@HDR
def test_a_bright_colour_keeps_its_hue(tmp_path: Path, signal, transfer: int):
    """Clipped one by one, a sun of orange turns yellow."""
    red, green, blue = seen(hdr(tmp_path / "a.mp4", [3.0, 1.0, 0.2], signal, transfer))
    light = [linear(value) for value in (red, green, blue)]
    assert light[0] > 0.95
    assert light[1] / light[0] == pytest.approx(1 / 3, abs=0.03)
    assert light[2] / light[0] == pytest.approx(0.2 / 3, abs=0.03)


def test_brighter_than_a_thousand_candelas_is_white(tmp_path: Path):
    assert seen(hdr(tmp_path / "a.mp4", [4000 / WHITE] * 3, pq, 16)) == [255, 255, 255]


@HDR
def test_hdr_that_says_no_primaries_is_bt2020(tmp_path: Path, signal, transfer: int):
    frame = wide([signal(one) for one in BT2020 @ [linear(value) for value in PATCH]])
    assert near(seen(write(tmp_path / "a.mkv", [frame] * 4, tags=(2, 2, transfer, 1))), PATCH)


# --- refused by name


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ((1, 1, 8, 1), "transfer 8 of H.273"),
        ((1, 1, 9, 1), "transfer 9 of H.273"),
        ((1, 10, 1, 1), "primaries 10 of H.273"),
        ((10, 9, 14, 1), "matrix 10 of H.273"),
        ((14, 9, 16, 1), "matrix 14 of H.273"),
    ],
    ids=["linear", "logarithmic", "XYZ", "constant luminance", "ICtCp"],
)
def test_colours_that_are_not_read_are_refused_by_name(tmp_path: Path, tags, reason: str):
    path = write(tmp_path / "a.mp4", [flat(PATCH)] * 4, tags=tags)
    with pytest.raises(UnreadableClip, match=f"{reason}.: convert it to BT.709"):
        sample_frames(path, 2, 8, 32, 32)


def test_dolby_vision_that_only_its_own_players_show_is_refused_by_name(tmp_path: Path):
    path = write(tmp_path / "a.mp4", [flat(PATCH)] * 4, tags=None)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"dva1"))
    with pytest.raises(UnreadableClip, match="Dolby Vision that other players cannot show"):
        sample_frames(path, 2, 8, 32, 32)
    # With an ordinary transfer beside it, any player shows it.
    path = write(tmp_path / "b.mp4", [flat(PATCH)] * 4)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"dva1"))
    assert near(seen(path), PATCH)
