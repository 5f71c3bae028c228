"""Clips: what is written plays in a browser, keeps its colours and frame times, and is whole or absent."""

from pathlib import Path

import av
import numpy as np
import pytest

from prophy.video import read_video, reading, write_video, writing


def moving_square(frames: int = 9, height: int = 32, width: int = 48) -> np.ndarray:
    clip = np.full((frames, height, width, 3), (30, 30, 60), np.uint8)
    for f in range(frames):
        clip[f, 8:16, 2 * f : 2 * f + 8] = (220, 40, 30)
    return clip


def test_written_clip_is_h264_yuv420p_with_its_index_in_front(tmp_path: Path):
    path = tmp_path / "a.mp4"
    assert write_video(path, moving_square(), 8, scale=4) == "h264"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (192, 128)
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")


def test_frame_f_is_shown_at_exactly_f_over_fps(tmp_path: Path):
    write_video(tmp_path / "a.mp4", moving_square(), 8)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == [f / 8 for f in range(9)]


def test_colours_survive_within_a_few_levels(tmp_path: Path):
    frames = moving_square()
    write_video(tmp_path / "a.mp4", frames, 8, scale=4)
    clip = read_video(tmp_path / "a.mp4")
    assert clip.fps == 8
    assert clip.frames.shape == (9, 128, 192, 3)
    centres = clip.frames[:, 2::4, 2::4].astype(int)
    assert np.abs(centres[0, 11, 3] - frames[0, 11, 3]).max() <= 6
    assert np.abs(centres[:, 28, 40] - (30, 30, 60)).max() <= 4


@pytest.mark.parametrize("fps", [8, 16, 24, 29.97])
def test_frame_rate_is_kept(tmp_path: Path, fps: float):
    write_video(tmp_path / "a.mp4", moving_square(), fps)
    assert read_video(tmp_path / "a.mp4").fps == pytest.approx(fps, rel=1e-4)


def test_vp9_stands_in_where_there_is_no_h264_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    missing = ("an_encoder_this_build_lacks", {})
    monkeypatch.setattr(writing, "_ENCODERS", (missing, writing._ENCODERS[1]))
    assert write_video(tmp_path / "a.mp4", moving_square(), 8, scale=4) == "vp9"
    assert read_video(tmp_path / "a.mp4").frames.shape == (9, 128, 192, 3)


def test_no_encoder_at_all_is_one_clear_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(writing, "_ENCODERS", (("an_encoder_this_build_lacks", {}),))
    with pytest.raises(RuntimeError, match="no video encoder could write"):
        write_video(tmp_path / "a.mp4", moving_square(), 8)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.mp4"
    write_video(path, moving_square(), 8)
    before = path.read_bytes()

    def drop_last_frame(path, frames, fps, encoder, options, encode=writing._encode):
        encode(path, frames[:-1], fps, encoder, options)

    monkeypatch.setattr(writing, "_encode", drop_last_frame)
    with pytest.raises(RuntimeError, match="decodes to 8 frames, not 9"):
        write_video(path, moving_square(), 8)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": moving_square().astype(np.float32)}, "frames must be uint8"),
        ({"frames": moving_square()[0]}, r"\(F, H, W, 3\)"),
        ({"frames": moving_square()[:0]}, "F ≥ 1"),
        ({"frames": moving_square(height=31)}, "odd side"),
        ({"fps": 0}, "fps=0 must be"),
        ({"fps": float("nan")}, "fps=nan must be"),
        ({"scale": 0}, "scale=0 must be"),
        ({"scale": 1.5}, "scale=1.5 must be"),
        ({"crf": 52}, "crf=52 must be"),
        ({"path": "a.avi"}, "must end in .mp4"),
    ],
)
def test_bad_clip_is_refused_before_anything_is_written(tmp_path: Path, change: dict, message: str):
    arguments = {"path": "a.mp4", "frames": moving_square(), "fps": 8, **change}
    path = tmp_path / arguments.pop("path")
    with pytest.raises(ValueError, match=message):
        write_video(path, arguments.pop("frames"), arguments.pop("fps"), **arguments)
    assert list(tmp_path.iterdir()) == []


def test_unreadable_files_are_refused_in_one_line(tmp_path: Path):
    (tmp_path / "text.mp4").write_text("not a video")
    write_video(tmp_path / "whole.mp4", moving_square(), 8)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:300])
    for name in ("text.mp4", "cut.mp4", "absent.mp4", "."):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is checked below)
            read_video(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_clip_too_large_for_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_video(tmp_path / "a.mp4", moving_square(), 8)
    monkeypatch.setattr(reading, "_MOST_BYTES", 10_000)
    with pytest.raises(ValueError, match="cut it into shorter clips"):
        read_video(tmp_path / "a.mp4")
