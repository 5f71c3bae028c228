"""What a file cuts from its pictures is not shown: by its container, which no decoder reads, or by its coded stream."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from test_video_display import display_matrix
from video_files import UPRIGHT, cropped_matroska, edges, element, scene, with_clean_aperture, write

from prophy.video import UnreadableClip, picture_size, read_video, sample_frames
from prophy.video.crop import Crop, declared_crop

LEFT, TOP, RIGHT, BOTTOM = 10, 20, 6, 12
BARS = (255, 255, 255)
#: PixelCropLeft, Top, Right and Bottom, DisplayWidth and DisplayHeight
MATROSKA = {0x54CC: LEFT, 0x54BB: TOP, 0x54DD: RIGHT, 0x54AA: BOTTOM, 0x54B0: 96, 0x54BA: 160}
CLEAN = (96, 1, 160, 1, LEFT - RIGHT, 2, TOP - BOTTOM, 2)
READERS = (picture_size, read_video, lambda path: sample_frames(path, 2, 8, 32, 32))


def framed() -> np.ndarray:
    """A scene within white bars, which nobody is to see."""
    picture = np.full((160 + TOP + BOTTOM, 96 + LEFT + RIGHT, 3), BARS, np.uint8)
    picture[TOP : TOP + 160, LEFT : LEFT + 96] = scene()
    return picture


def assert_no_bars(path: Path, height: int = 160, width: int = 96) -> None:
    """The scene alone is shown, in everything that reads a clip. FFmpeg's own programs cut so much since 7.1 only."""
    assert picture_size(path) == (height, width)
    for frames in (read_video(path).frames, sample_frames(path, 2, 8, height, width)):
        assert frames.shape[1:] == (height, width, 3)
        assert edges(frames[0]) == UPRIGHT
        assert frames[:, 2:-2, 2:-2].min(3).max() < 200, "some white is there"


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_what_matroska_cuts_is_not_shown(tmp_path: Path, suffix: str):
    written = {} if suffix == ".mkv" else {"codec": "libvpx-vp9", "options": {"crf": "4", "b": "0"}}
    path = write(tmp_path / f"a{suffix}", [framed()] * 8, **written)
    assert picture_size(path) == framed().shape[:2]
    assert_no_bars(cropped_matroska(path, MATROSKA))


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_what_a_clean_aperture_cuts_is_not_shown(tmp_path: Path, suffix: str):
    path = write(tmp_path / f"a{suffix}", [framed()] * 8)
    assert picture_size(path) == framed().shape[:2]
    assert_no_bars(with_clean_aperture(path, *CLEAN))


def test_what_a_coded_stream_cuts_is_not_shown(tmp_path: Path):
    """A decoder aligns the left side: without being told otherwise it cut nothing there, and showed as much more."""
    sides = f"crop-rect={LEFT},{TOP},{RIGHT},{BOTTOM}"
    assert_no_bars(write(tmp_path / "a.mp4", [framed()] * 8, options={"x264-params": sides}))


def test_a_picture_is_cut_before_it_is_turned(tmp_path: Path):
    coded = np.rot90(framed(), 1)  # its left is the top that is shown
    sides = (coded.shape[1] - 160, coded.shape[0] - 96)
    turned = write(tmp_path / "a.mp4", [coded] * 8, matrix=display_matrix(0, 1, -1, 0))
    assert sides == (TOP + BOTTOM, LEFT + RIGHT)
    assert_no_bars(with_clean_aperture(turned, 160, 1, 96, 1, TOP - BOTTOM, 2, RIGHT - LEFT, 2))


def test_a_picture_is_stretched_once_it_is_cut(tmp_path: Path):
    wide = cropped_matroska(write(tmp_path / "a.mkv", [framed()] * 8), {**MATROSKA, 0x54B0: 192, 0x54B2: 0})
    assert picture_size(wide) == (160, 192)
    assert edges(read_video(wide).frames[0]) == UPRIGHT
    wide = write(tmp_path / "b.mp4", [framed()] * 8, aspect=Fraction(2, 1))
    assert picture_size(with_clean_aperture(wide, *CLEAN)) == (160, 192)


def test_each_track_has_a_crop_of_its_own(tmp_path: Path):
    for suffix in (".mkv", ".mp4"):
        path = tmp_path / f"two{suffix}"
        with av.open(str(path), "w") as container:
            streams = []
            for picture in (framed()[::2, ::2], framed()):
                stream = container.add_stream("libx264", rate=8, options={"crf": "1", "bf": "0"})
                stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
                streams.append((stream, np.ascontiguousarray(picture)))
            for stream, picture in streams:
                for _ in range(8):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            for stream, _ in streams:
                container.mux(stream.encode())
        half = [number // 2 for number in MATROSKA.values()]
        if suffix == ".mkv":
            cropped_matroska(path, dict(zip(MATROSKA, half, strict=True)), MATROSKA)
        else:
            with_clean_aperture(path, *CLEAN, track=1)
            with_clean_aperture(path, 48, 1, 80, 1, LEFT - RIGHT, 4, TOP - BOTTOM, 4)
        shown = picture_size(path)
        assert shown in ((80, 48), (160, 96))
        assert_no_bars(path, *shown)


@pytest.mark.parametrize("cut", [{0x54CC: 200}, {0x54BB: 192}, {0x54CC: 56, 0x54DD: 56}])
def test_a_crop_that_leaves_nothing_is_refused(tmp_path: Path, cut: dict[int, int]):
    path = cropped_matroska(write(tmp_path / "a.mkv", [framed()] * 3), cut)
    for read in READERS:
        with pytest.raises(UnreadableClip, match=r"none of its 112×192 pixels|cannot be read as a video: Invalid data"):
            read(path)  # FFmpeg has a look at them, too
    with pytest.raises(ValueError, match="is to be cut to a part that is none of its 112×192 pixels: re-mux it"):
        declared_crop(path, "matroska,webm", 1, 0, 192, 112)


@pytest.mark.parametrize(
    "aperture", [(113, 1, 160, 1, 0, 1, 0, 1), (96, 1, 160, 1, 40, 1, 0, 1), (0, 1, 8, 1, 0, 1, 0, 1)]
)
def test_an_aperture_outside_the_picture_is_refused_by_name(tmp_path: Path, aperture: tuple[int, ...]):
    path = with_clean_aperture(write(tmp_path / "a.mp4", [framed()] * 3), *aperture)
    for read in READERS:
        with pytest.raises(UnreadableClip, match="cut to a part that is none of its 112×192 pixels"):
            read(path)


def test_an_aperture_without_a_denominator_and_broken_elements_cut_nothing(tmp_path: Path):
    path = with_clean_aperture(write(tmp_path / "a.mp4", [framed()] * 3), 96, 0, 160, 1, 0, 1, 0, 1)
    assert picture_size(path) == (192, 112)
    head = element(0x1A45DFA3, b"") + element(0x18538067, b"")
    whole = element(0x1654AE6B, element(0xAE, element(0x83, b"\1") + element(0xE0, element(0x54CC, b"\4"))))
    for data, crops in (
        (head + whole, Crop(4)),
        (head + element(0xEC, b"\0" * 9) + whole, Crop(4)),
        (head + whole[:4] + b"\xff" + whole[12:], Crop(4)),  # of a length that is not known
        (head + b"\x1f\x43\xb6\x75\xff" + whole, Crop()),  # clusters of a live recording come last
        (head, Crop()),
        (b"", Crop()),
        (b"\0" * 40, Crop()),
        (head + whole[:-3], Crop()),
        (head + b"\x16", Crop()),
        (head + struct.pack(">IQ", 0x1654AE6B, 2**60 | 1 << 56), Crop()),
    ):
        file = tmp_path / "a.mkv"
        file.write_bytes(data)
        assert declared_crop(file, "matroska,webm", 1, 0, 64, 64) == crops
        assert declared_crop(file, "matroska,webm", 1, 5, 64, 64) == Crop()
    assert declared_crop(file, "avi", 1, 0, 64, 64) == Crop()
