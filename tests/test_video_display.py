"""A video is read as a player shows it: the right way up, its pixels square, the right track, at the right times."""

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from video_files import UPRIGHT, edges, greys, numbers, patched, scene, write, yuv

from prophy.video import UnreadableClip, picture_size, read_video, sample_frames

ONE = 1 << 16  # in a display matrix

#: How the file turns its coded picture to show it: a, b, c, d of the display matrix, and the coded picture of a scene.
TURNS = {
    "upright": ((1, 0, 0, 1), lambda shown: shown),
    "a quarter clockwise": ((0, 1, -1, 0), lambda shown: np.rot90(shown, 1)),
    "half": ((-1, 0, 0, -1), lambda shown: np.rot90(shown, 2)),
    "a quarter anticlockwise": ((0, -1, 1, 0), lambda shown: np.rot90(shown, 3)),
    "mirrored": ((-1, 0, 0, 1), lambda shown: shown[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda shown: shown[::-1]),
    "transposed": ((0, 1, 1, 0), lambda shown: shown.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda shown: np.rot90(shown, 2).swapaxes(0, 1)),
}


def display_matrix(a: float, b: float, c: float, d: float) -> list[int]:
    return [round(a * ONE), round(b * ONE), 0, round(c * ONE), round(d * ONE), 0, 0, 0, 1 << 30]


def by_ffmpeg(path: Path) -> np.ndarray:
    """The first frame as FFmpeg's own programs show it, with square pixels."""
    command = ["ffmpeg", "-loglevel", "error", "-i", path, "-vf", "scale=iw*sar:ih", "-frames:v", "1"]
    done = subprocess.run([*command, "-f", "image2pipe", "-c:v", "png", "-"], capture_output=True, check=True)
    return cv2.imdecode(np.frombuffer(done.stdout, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def assert_shown(path: Path, height: int = 160, width: int = 96) -> None:
    """The scene is upright in everything that reads a clip, and in FFmpeg's programs where they are."""
    assert picture_size(path) == (height, width)
    whole = read_video(path).frames[0]
    assert whole.shape == (height, width, 3)
    assert edges(whole) == UPRIGHT
    assert edges(sample_frames(path, 4, 8, height // 2, width // 2)[3]) == UPRIGHT
    if shutil.which("ffmpeg"):
        assert np.abs(whole.astype(int) - by_ffmpeg(path)).mean() < 5  # its scaler is three levels out by itself


# --- turned


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("turn", TURNS)
def test_a_phones_clip_is_turned_as_its_display_matrix_says(tmp_path: Path, turn: str, suffix: str):
    matrix, coded = TURNS[turn]
    assert_shown(write(tmp_path / f"a{suffix}", [coded(scene())] * 8, matrix=display_matrix(*matrix)))


def test_a_matroska_file_is_turned_too(tmp_path: Path):
    coded = [np.rot90(scene(), 1)] * 8
    assert_shown(write(tmp_path / "a.mkv", coded, matrix=display_matrix(0, 1, -1, 0)))


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (2, 0, 0, 2), (1, 0.01, -0.01, 1)], ids=["none", "scaled", "rounded"])
def test_a_display_matrix_that_turns_nothing_changes_nothing(tmp_path: Path, matrix: tuple[float, ...]):
    assert_shown(write(tmp_path / "a.mp4", [scene()] * 8, matrix=display_matrix(*matrix)))


def test_a_clip_to_be_shown_askew_is_refused_by_name(tmp_path: Path):
    path = write(tmp_path / "a.mp4", [scene()] * 8, matrix=display_matrix(0.866, 0.5, -0.5, 0.866))
    for read in (picture_size, read_video, lambda path: sample_frames(path, 4, 8, 32, 32)):
        with pytest.raises(UnreadableClip, match=r"turned by 30 degrees: re-encode it upright"):
            read(path)


# --- pixels that are not square


@pytest.mark.parametrize(
    ("coded", "aspect", "shown"),
    [
        ((96, 80), Fraction(2, 1), (96, 160)),
        ((48, 72), Fraction(8, 9), (48, 64)),
        ((160, 192), Fraction(1, 2), (160, 96)),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pixels_that_are_not_square_are_made_so(tmp_path: Path, suffix: str, coded, aspect: Fraction, shown):
    assert_shown(write(tmp_path / f"a{suffix}", [scene(*coded)] * 8, aspect=aspect), *shown)


def test_a_turned_clip_has_its_pixels_turned_with_it(tmp_path: Path):
    coded = np.rot90(scene(160, 48), 1)  # 48 high, 160 wide, and each pixel half as wide as high
    path = write(tmp_path / "a.mp4", [coded] * 8, matrix=display_matrix(0, 1, -1, 0), aspect=Fraction(1, 2))
    assert_shown(path, 160, 96)


def test_a_disc_stays_one_whatever_the_pixels_are(tmp_path: Path):
    coded = np.zeros((96, 40, 3), np.uint8)  # shown at 96 × 160
    rows, columns = np.mgrid[:96, :40]
    coded[(rows - 47.5) ** 2 + (4 * (columns - 19.5)) ** 2 < 30**2] = 255
    path = write(tmp_path / "a.mp4", [coded] * 4, aspect=Fraction(4, 1))
    disc = sample_frames(path, 1, 8, 96, 96)[0, :, :, 0] > 127
    assert abs(int(disc.any(0).sum()) - 60) <= 4, "as wide as a coded pixel"
    assert abs(int(disc.any(1).sum()) - 60) <= 1


def test_a_pixel_as_wide_as_a_house_is_refused(tmp_path: Path):
    path = write(tmp_path / "a.mp4", [scene()] * 4, aspect=Fraction(2, 1))
    patched(path, b"pasp", 0, numbers(60_000, 1))
    for read in (picture_size, read_video, lambda path: sample_frames(path, 2, 8, 32, 32)):
        with pytest.raises(UnreadableClip, match="is to be shown 5760000 pixels wide and 160 high"):
            read(path)


# --- which track


def tracks(path: Path, *wanted: tuple[list[np.ndarray], str, Disposition]) -> Path:
    """A file with several video tracks."""
    with av.open(str(path), "w") as container:
        streams = []
        for frames, codec, disposition in wanted:
            stream = container.add_stream(codec, rate=8)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.disposition = disposition
            streams.append(stream)
        for stream, (frames, codec, _) in zip(streams, wanted, strict=True):
            for number, picture in enumerate(frames):
                frame = yuv(picture, stream.pix_fmt, full=codec == "mjpeg")
                frame.pts = number
                frame.time_base = Fraction(1, 8)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


COVER = (greys([10], 256, 256), "mjpeg", Disposition.attached_pic)
PICTURE = (greys([10], 256, 256), "libx264", Disposition.default)
PREVIEW = (greys([10] * 8, 32, 32), "libx264", Disposition.default)
EXTRAS = (greys([10] * 8, 256, 256), "libx264", Disposition(0))
FILM = ([scene()] * 8, "libx264", Disposition.default)


@pytest.mark.parametrize(
    "wanted",
    [
        ("a.mp4", COVER, FILM),
        ("a.mp4", PICTURE, FILM),
        ("a.mp4", PREVIEW, FILM),
        ("a.mp4", FILM, PREVIEW),
        ("a.mp4", EXTRAS, FILM),
        ("a.mkv", PREVIEW, FILM),
        ("a.mkv", EXTRAS, FILM),
    ],
    ids=["a cover", "one picture", "smaller", "smaller behind", "not the default", "smaller, mkv", "not default, mkv"],
)
def test_the_track_that_a_player_shows_is_read(tmp_path: Path, wanted):
    name, *of = wanted
    path = tracks(tmp_path / name, *of)
    assert picture_size(path) == (160, 96)
    assert edges(sample_frames(path, 8, 8, 160, 96)[7]) == UPRIGHT
    assert len(read_video(path).frames) == 8


def test_sound_with_a_cover_is_no_video(tmp_path: Path):
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound, cover = container.add_stream("aac", rate=16000), container.add_stream("mjpeg", rate=8)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 64, "yuvj420p", Disposition.attached_pic
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate = 16000
        container.mux(sound.encode(samples))
        container.mux(cover.encode(yuv(scene(64, 64), "yuvj420p", full=True)))
        container.mux(sound.encode())
        container.mux(cover.encode())
    with pytest.raises(UnreadableClip, match="has no video stream, only a still picture such as a cover"):
        picture_size(path)


def test_a_video_in_an_unknown_format_is_named_as_that(tmp_path: Path):
    path = patched(write(tmp_path / "a.mp4", [scene()] * 4), b"avc1", -4, b"zzzz")  # also the brand, before it
    data = path.read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    for read in (picture_size, read_video, lambda path: sample_frames(path, 2, 8, 32, 32)):
        with pytest.raises(UnreadableClip, match="a format that is not known: re-encode it"):
            read(path)


# --- when


def levels(frames: np.ndarray) -> list[int]:
    return np.rint(frames.mean((1, 2, 3)) / 10).astype(int).tolist()


def test_a_rate_that_varies_is_followed(tmp_path: Path):
    times = [0, 1, 2, 3, 8, 9, 10, 20]  # sixteenths of a second
    path = write(tmp_path / "a.mp4", greys(range(40, 120, 10)), rate=16, times=times)
    assert levels(sample_frames(path, 11, 8, 32, 48)) == [4, 6, 7, 7, 8, 10, 10, 10, 10, 10, 11]


def test_the_last_frame_is_shown_for_as_long_as_it_lasts(tmp_path: Path):
    pictures = [av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="rgb8") for grey in greys([0, 255])]
    options = {"final_delay": "100"}  # hundredths of a second
    path = write(tmp_path / "a.gif", pictures, rate=4, codec="gif", tags=None, container_options=options)
    assert (sample_frames(path, 5, 4, 32, 48).mean((1, 2, 3)) > 127).tolist() == [False, True, True, True, True]
    with pytest.raises(UnreadableClip, match="is too short, 1.25 s"):
        sample_frames(path, 6, 4, 32, 48)


@pytest.mark.parametrize("start", [0.0, 0.5])
@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
def test_a_file_that_starts_late_starts_with_its_first_frame(tmp_path: Path, suffix: str, start: float):
    path = write(tmp_path / f"a{suffix}", greys(range(40, 140, 10)), times=list(range(80, 90)))
    assert levels(sample_frames(path, 4, 8, 32, 48, start=start)) == [4 + 8 * start + k for k in range(4)]


def test_what_an_edit_list_cuts_off_is_not_shown(tmp_path: Path):
    path = write(tmp_path / "a.mp4", greys(range(40, 120, 10)))
    with av.open(str(path)) as container:
        ticks = container.streams.video[0].time_base.denominator
    # version, one piece: how long it is in thousandths, where it begins in the track's ticks.
    patched(path, b"elst", 0, numbers(0, 1, 500, ticks * 3 // 8))
    assert levels(sample_frames(path, 4, 8, 32, 48)) == [7, 8, 9, 10]
    assert levels(read_video(path).frames) == [7, 8, 9, 10]
    with pytest.raises(UnreadableClip, match="is too short, 0.50 s"):
        sample_frames(path, 6, 8, 32, 48)


def test_frames_whose_size_changes_midway_are_each_fitted(tmp_path: Path):
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 96, 160, "yuv420p"
        other = av.CodecContext.create("libx264", "w")
        other.options = {"bf": "0"}
        other.width, other.height, other.pix_fmt, other.time_base = 192, 320, "yuv420p", Fraction(1, 8)
        for number in range(8):
            frame = yuv(scene(*((160, 96) if number < 4 else (320, 192))))
            frame.pts, frame.time_base = number, Fraction(1, 8)
            for packet in (stream if number < 4 else other).encode(frame):
                packet.stream = stream
                container.mux(packet)
            if number == 3:
                container.mux(stream.encode())
        for packet in other.encode():
            packet.stream = stream
            container.mux(packet)
    frames = sample_frames(path, 8, 8, 160, 96)
    assert [edges(frame) for frame in frames] == [UPRIGHT] * 8
    frames = read_video(path).frames
    assert frames.shape == (8, 160, 96, 3)
    assert [edges(frame) for frame in frames] == [UPRIGHT] * 8


# --- how it is stored


def test_the_fields_of_interlaced_video_are_made_one_picture_at_the_same_times(tmp_path: Path):
    def moving(field: int) -> np.ndarray:
        picture = np.full((96, 128, 3), 60, np.uint8)
        picture[32:64, 4 + 4 * field : 36 + 4 * field] = 200
        picture[:16] = np.arange(128)[:, None]
        return picture

    woven = []
    for number in range(8):
        picture = moving(2 * number)
        picture[1::2] = moving(2 * number + 1)[1::2]
        woven.append(picture)
    path = write(tmp_path / "a.mp4", woven, options={"x264-params": "tff=1"})
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames = read_video(path).frames.astype(int)
    assert len(frames) == 8

    def comb(picture: np.ndarray) -> float:
        """How much each line of the moving part differs from the mean of its neighbours."""
        part = picture[36:60, :, 0]
        return np.abs(part[1:-1] - (part[:-2] + part[2:]) / 2).mean()

    for number in range(1, 7):
        assert comb(frames[number]) < comb(woven[number].astype(int)) / 4
        left = np.flatnonzero(frames[number, 48, :, 0] > 130).min()
        assert abs(left - (4 + 8 * number)) <= 4, "the picture of another time"
        assert np.abs(frames[number, 2:14] - woven[number][2:14]).max() < 24, "what stands still stays as it is"


@pytest.mark.parametrize("codec", ["qtrle", "png"])
def test_what_is_transparent_is_black(tmp_path: Path, codec: str):
    picture = np.full((32, 48, 4), (200, 100, 50, 255), np.uint8)
    picture[:, 16:32, 3], picture[:, 32:, 3] = 128, 0
    pix_fmt = "argb" if codec == "qtrle" else "rgba"
    frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=pix_fmt)
    path = write(tmp_path / "a.mov", [frame] * 4, codec=codec, tags=None)
    shown = sample_frames(path, 2, 8, 32, 48)[0]
    assert shown[16, [8, 24, 40]].tolist() == [[200, 100, 50], [100, 50, 25], [0, 0, 0]]


def test_odd_sizes_keep_every_pixel(tmp_path: Path):
    picture = scene(61, 33)
    picture[-1, -1] = picture[0, -1] = (250, 250, 250)
    path = write(tmp_path / "a.mp4", [yuv(picture, "yuv444p")] * 4)
    assert picture_size(path) == (61, 33)
    frames = sample_frames(path, 2, 8, 61, 33)
    assert np.abs(frames[1].astype(int) - picture).max() <= 6
    assert np.array_equal(read_video(path).frames[0], frames[0])


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("mpeg2video", "yuv420p", ".mpg"),
        ("mpeg4", "yuv420p", ".avi"),
        ("mjpeg", "yuvj422p", ".avi"),
        ("prores_ks", "yuv422p10le", ".mov"),
        ("ffv1", "bgr0", ".mkv"),
        ("libvpx-vp9", "yuv420p", ".webm"),
        ("libx264", "yuv420p10le", ".mkv"),
        ("libx264", "gray", ".mp4"),
    ],
)
def test_common_codecs_and_containers_are_read(tmp_path: Path, codec: str, pix_fmt: str, suffix: str):
    if pix_fmt in ("bgr0", "gray"):
        frame = av.VideoFrame.from_ndarray(scene(), format="rgb24").reformat(format=pix_fmt)
    else:
        frame = yuv(scene(), pix_fmt, full=pix_fmt.startswith("yuvj"))
    path = write(tmp_path / f"a{suffix}", [frame] * 25, rate=25, codec=codec, tags=None)
    assert picture_size(path) == (160, 96)
    shown = sample_frames(path, 8, 8, 160, 96)[7]
    if pix_fmt != "gray":
        assert edges(shown) == UPRIGHT
    assert abs(int(shown[100, 60, 0]) - 120) <= 6
