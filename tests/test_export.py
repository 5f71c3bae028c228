"""Exports: what is seen is what was recorded, what is packed is the run, and nothing half-written is left."""

import dataclasses
import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence
from synthetic import GRID, make_attention, make_frames, make_record, make_trace

from prophy.assets import gallery_dir
from prophy.grid import TokenGrid
from prophy.phenomena import PHENOMENA
from prophy.routing.trace import RoutingTrace
from prophy.runs import export
from prophy.runs.export import (
    export_gif,
    export_overlay,
    export_pair,
    export_still,
    export_trace,
    export_zip,
)
from prophy.runs.layer import ExportError, OverlaySettings
from prophy.runs.overlay import expert_colour, level_colours, overlay, rgb
from prophy.runs.record import RunError
from prophy.runs.store import Run, find_run, read_run, write_run
from prophy.video import read_video

GALLERY = sorted(path.name for path in gallery_dir().iterdir())
TOP1 = OverlaySettings("top1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small valid run; tests that damage it copy it first."""
    sheet = np.zeros((20, 30, 3), np.uint8)
    root = tmp_path_factory.mktemp("runs")
    return write_run(root, make_record(), make_frames(), trace=make_trace(), sheet=sheet, run_id="whole")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run made without a branch."""
    return write_run(tmp_path_factory.mktemp("runs"), make_record(), make_frames(), run_id="bare")


@pytest.fixture
def copy(whole: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(shutil.copytree(whole.path, tmp_path_factory.mktemp("runs") / "whole"))


def write(what: str, run: Run, folder: Path, **arguments) -> Path:
    """Export under the usual name."""
    if what == "overlay":
        return export_overlay(run, folder / "a.mp4", TOP1, **arguments)
    if what == "gif":
        return export_gif(run, folder / "a.gif", TOP1, **arguments)
    if what == "still":
        return export_still(run, folder / "a.png", TOP1, 4, **arguments)
    if what == "trace":
        return export_trace(run, folder / "a.npz", **arguments)
    return export_zip(run, folder / "a.zip", **arguments)


def centres(pictures: np.ndarray, grid: TokenGrid) -> np.ndarray:
    """The pixels in the middle of each token: int (..., token rows, token columns, 3)."""
    height, width = pictures.shape[-3] // grid.height, pictures.shape[-2] // grid.width
    return pictures[..., height // 2 :: height, width // 2 :: width, :].astype(int)


def read_png(path: Path) -> np.ndarray:
    return cv2.imread(str(path))[..., ::-1]


@pytest.fixture(scope="module")
def attended(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose attention was recorded."""
    root = tmp_path_factory.mktemp("runs")
    return write_run(root, make_record(), make_frames(), trace=make_trace(), attention=make_attention(), run_id="words")


# --- what is seen is what was recorded --------------------------------------------------------------------------------


def settings_that_show_much(mode: str, trace: RoutingTrace) -> OverlaySettings:
    """A view of step 3, of the expert or the phenomenon that is strongest there."""
    experts = [trace.expert_map(e, 2).mean() for e in range(trace.num_experts)]
    index = {"expert": int(np.argmax(experts)), "phenomenon": int(trace.phenomenon_maps[2].mean(0).argmax())}
    return OverlaySettings(mode, index.get(mode), step=3, opacity=0.8)


@pytest.mark.parametrize("mode", ["phenomena", "top1", "phenomenon", "expert"])
def test_the_video_shows_the_overlay_frame_by_frame(tmp_path: Path, mode: str):
    run = find_run(gallery_dir(), GALLERY[0])
    clip, trace = run.clip(), run.trace()
    settings = settings_that_show_much(mode, trace)
    written = read_video(export_overlay(run, tmp_path / "a.mp4", settings))
    assert (len(written.frames), written.fps) == (len(clip.frames), clip.fps)
    shown = overlay(clip.frames, trace, mode, index=settings.index, step=2, opacity=0.8)
    height = shown.shape[1]
    expected, found = centres(shown, trace.grid), centres(written.frames[:, :height], trace.grid)
    assert np.abs(expected - centres(clip.frames, trace.grid)).max() > 36, "shows too little to be tested"
    assert np.abs(found - expected).max() <= 12
    assert np.abs(found - expected).mean() < 2
    legend = written.frames[:, height::4, ::4].astype(int)
    assert legend.shape[1] > 0
    assert np.abs(legend - legend[0]).max() <= 24, "the legend moves"


def test_the_video_plays_in_browsers_and_keeps_its_frame_times(whole: Run, tmp_path: Path):
    path = export_overlay(whole, tmp_path / "a.mp4", TOP1)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name in ("h264", "vp9")
        assert stream.pix_fmt == "yuv420p"
        assert stream.height % 2 == stream.width % 2 == 0
        assert [frame.time for frame in container.decode(stream)] == [f / 8 for f in range(GRID.num_video_frames)]
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat")


def test_a_gif_shows_the_overlay_frame_by_frame_for_as_long_as_the_clip_lasts(whole: Run, tmp_path: Path):
    frames, fps = whole.clip()
    wanted = overlay(frames, whole.trace(), "top1")
    with Image.open(export_gif(whole, tmp_path / "a.gif", TOP1, legend=False)) as gif:
        shown = [(np.array(frame.convert("RGB")), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)]
        assert gif.info["loop"] == 0
    assert sum(duration for _, duration in shown) == pytest.approx(1000 * len(frames) / fps, abs=5)
    assert len(shown) == len(frames)
    for (picture, _), expected in zip(shown, wanted, strict=True):
        assert np.abs(picture.astype(int) - cv2.resize(expected, picture.shape[1::-1])).mean() < 6


def test_a_gif_of_the_clip_alone_needs_no_routing(bare: Run, tmp_path: Path):
    with Image.open(export_gif(bare, tmp_path / "a.gif", None)) as gif:
        assert gif.n_frames == bare.record.settings["frames"]
        assert gif.width <= 480
    with pytest.raises(ExportError, match="made without a branch, so there is no routing for the gif"):
        export_gif(bare, tmp_path / "b.gif", TOP1)


@pytest.mark.parametrize("run_id", GALLERY)
def test_a_stills_pixels_are_the_frame_mixed_with_the_colour_of_the_recorded_expert(tmp_path: Path, run_id: str):
    run = find_run(gallery_dir(), run_id)
    trace, frame = run.trace(), 9
    picture = read_png(export_still(run, tmp_path / "a.png", OverlaySettings("top1", step=20, opacity=0.4), frame))
    under = run.clip().frames[frame]
    experts = trace.topk_ids[19, :, 0].reshape(trace.grid.shape)[trace.grid.latent_frame(frame)]
    assert len(np.unique(experts)) > 1
    palette = np.array([rgb(expert_colour(e)) for e in range(trace.num_experts)])
    expected = 0.6 * centres(under, trace.grid) + 0.4 * palette[experts]
    assert np.abs(centres(picture[: len(under)], trace.grid) - expected).max() <= 1


def test_a_still_of_each_step_and_frame_is_its_own(whole: Run, tmp_path: Path):
    trace, frames = whole.trace(), whole.clip().frames
    for step, frame in [(1, 0), (2, 1), (4, 8)]:
        settings = OverlaySettings("expert", 2, step=step, opacity=1)
        path = export_still(whole, tmp_path / "a.png", settings, frame, legend=False, overwrite=True)
        expected = overlay(frames, trace, "expert", index=2, step=step - 1, opacity=1)[frame]
        np.testing.assert_array_equal(read_png(path), expected)


def test_the_last_step_is_shown_unless_another_is_asked_for(whole: Run, tmp_path: Path):
    last = export_still(whole, tmp_path / "last.png", TOP1, 0).read_bytes()
    assert export_still(whole, tmp_path / "4.png", OverlaySettings("top1", step=4), 0).read_bytes() == last
    assert export_still(whole, tmp_path / "3.png", OverlaySettings("top1", step=3), 0).read_bytes() != last


def test_the_legend_holds_the_colour_of_every_expert_in_the_clip(whole: Run, tmp_path: Path):
    height = whole.clip().frames.shape[1]
    beneath = read_png(export_still(whole, tmp_path / "a.png", TOP1, 4))[height:]
    for expert in np.unique(whole.trace().top1()):
        assert (beneath == rgb(expert_colour(expert))).all(axis=2).sum() > 50, expert
    assert (beneath == 255).all(axis=2).mean() > 0.6


@pytest.mark.parametrize("step", [2, 4, None])
def test_a_words_map_lies_over_the_clip_along_the_scale(attended: Run, tmp_path: Path, step: int | None):
    attention, word = make_attention(), 2
    settings = OverlaySettings("words", word, step=step, opacity=0.7)
    levels = attention.word_maps[0 if step == 2 else 1, :, word].reshape(GRID.shape)
    clip = attended.clip().frames
    for frame in (0, 3, 8):
        colours = level_colours()[levels[GRID.latent_frame(frame)]]
        expected = 0.3 * centres(clip[frame], GRID) + 0.7 * colours
        name = f"{frame}.png"
        picture = read_png(export_still(attended, tmp_path / name, settings, frame, legend=False))
        assert np.abs(centres(picture, GRID) - expected).max() <= 1
    opaque = dataclasses.replace(settings, opacity=1)
    video = read_video(export_overlay(attended, tmp_path / "a.mp4", opaque)).frames[:, : clip.shape[1]]
    with Image.open(export_gif(attended, tmp_path / "a.gif", opaque, legend=False)) as gif:
        pictures = np.stack([np.array(picture.convert("RGB")) for picture in ImageSequence.Iterator(gif)])
    assert len(pictures) == GRID.frames, "alike neighbours are one picture of a GIF"
    for moving, latent in ((video, [GRID.latent_frame(f) for f in range(len(video))]), (pictures, [0, 1, 2])):
        assert np.abs(centres(moving, GRID) - level_colours()[levels[latent]].astype(int)).mean() < 6


def test_where_a_region_looks_is_the_mean_of_its_cells_by_their_own_peak(attended: Run, tmp_path: Path):
    attention = make_attention()
    settings = OverlaySettings("looks", region=(1, 1, 2, 0, 3), opacity=1)
    tokens = [GRID.index(1, h, w) for h in (1, 2) for w in range(4)]
    shares = np.mean([attention.attended_from(token) for token in tokens], axis=0)
    levels = np.round(255 * shares / shares.max()).astype(int)
    scale = level_colours().astype(int)
    for frame in (0, 4, 8):
        path = tmp_path / f"{frame}.png"
        shown = centres(read_png(export_still(attended, path, settings, frame, legend=False)), GRID)
        here = levels[GRID.latent_frame(frame)]
        near = [scale[np.clip(here + off, 0, 255)] for off in (-1, 0, 1)]
        assert np.minimum.reduce([np.abs(shown - colours).max(-1) for colours in near]).max() == 0


def test_the_legend_of_a_word_names_it_and_its_peak(attended: Run):
    from prophy.runs.layer import Layer

    attention = make_attention()
    layer = Layer.of(attended, OverlaySettings("words", 2), "still")
    assert layer.headings == (attention.prompt, "How much each token attends to “ball”, denoising step 4 of 4")
    assert layer.entries[0].text == f"0 to {100 * attention.word_peaks[2]:.2g} % of a token's attention"
    looks = Layer.of(attended, OverlaySettings("looks", region=(1, 2, 2, 3, 3)), "still")
    assert looks.headings[1].startswith("Where the token at row 2, column 3, frames 2–5 looks, over")


def test_without_a_legend_the_picture_has_the_clips_size(whole: Run, tmp_path: Path):
    size = whole.clip().frames.shape
    assert read_video(export_overlay(whole, tmp_path / "a.mp4", TOP1, legend=False)).frames.shape == size
    assert read_png(export_still(whole, tmp_path / "a.png", TOP1, 4, legend=False)).shape == size[1:]


# --- what is packed is the run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", GALLERY)
def test_a_zip_holds_the_run_and_unpacks_into_one(tmp_path: Path, run_id: str):
    run = find_run(gallery_dir(), run_id)
    with zipfile.ZipFile(export_zip(run, tmp_path / "a.zip")) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(f"{run_id}/{name}" for name in ("run.json", *run.files))
        for name, stored in run.files.items():
            assert hashlib.sha256(archive.read(f"{run_id}/{name}")).hexdigest() == stored.sha256
        archive.extractall(tmp_path / "unpacked")
    again = read_run(tmp_path / "unpacked" / run_id)
    assert (again.record, again.files) == (run.record, run.files)
    np.testing.assert_array_equal(again.trace().topk_ids, run.trace().topk_ids)


def test_the_same_run_gives_the_same_zip_whenever_and_beside_whatever_it_is_packed(copy: Run, tmp_path: Path):
    first = export_zip(copy, tmp_path / "first.zip").read_bytes()
    for name in copy.files:
        os.utime(copy.path / name, (1e9, 1e9))
        os.chmod(copy.path / name, 0o600)
    (copy.path / "notes.txt").write_text("mine")
    assert export_zip(copy, tmp_path / "second.zip").read_bytes() == first


def test_a_trace_is_copied_byte_by_byte(whole: Run, tmp_path: Path):
    path = export_trace(whole, tmp_path / "a.npz")
    assert path.read_bytes() == whole.routing_path.read_bytes()
    np.testing.assert_array_equal(RoutingTrace.load(path).topk_weights, make_trace().topk_weights)


def test_a_run_without_routing_can_only_be_packed(bare: Run, tmp_path: Path):
    for what in ("overlay", "gif", "still", "trace"):
        with pytest.raises(ExportError, match=f"bare was made without a branch, .* no routing for the {what}"):
            write(what, bare, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with zipfile.ZipFile(write("zip", bare, tmp_path)) as archive:
        assert sorted(archive.namelist()) == ["bare/poster.png", "bare/run.json", "bare/video.mp4"]


# --- nothing half-written is left -------------------------------------------------------------------------------------

WHATS = ("overlay", "gif", "still", "trace", "zip")


@pytest.mark.parametrize("name", ["video.mp4", "poster.png", "routing.npz", "run.json"])
def test_a_run_that_was_damaged_after_it_was_read_is_refused(copy: Run, tmp_path: Path, name: str):
    data = bytearray((copy.path / name).read_bytes())
    data[len(data) // 2] ^= 255
    (copy.path / name).write_bytes(data)
    for what in WHATS:
        with pytest.raises(RunError) as caught:
            write(what, copy, tmp_path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", WHATS)
def test_an_existing_file_is_replaced_only_when_asked(whole: Run, tmp_path: Path, what: str):
    path = write(what, whole, tmp_path)
    path.write_bytes(b"mine")
    with pytest.raises(ExportError, match="already exists: choose another name, or overwrite it"):
        write(what, whole, tmp_path)
    assert path.read_bytes() == b"mine"
    write(what, whole, tmp_path, overwrite=True)
    assert path.read_bytes() != b"mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("what", "stage"),
    [
        ("overlay", "write_video"),
        ("gif", "write_gif"),
        ("still", "write_png"),
        ("trace", "read_run"),
        ("zip", "read_run"),
    ],
)
def test_an_export_that_fails_midway_keeps_the_old_file(
    whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, stage: str
):
    path = write(what, whole, tmp_path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(export, stage, fail)
    with pytest.raises(OSError, match="disk full"):
        write(what, whole, tmp_path, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_zip_cut_short_by_a_full_disk_is_not_left(whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def half(self: Run, name: str, read=Run.read_bytes) -> bytes:
        if name == "video.mp4":
            raise OSError("disk full")
        return read(self, name)

    monkeypatch.setattr(Run, "read_bytes", half)
    with pytest.raises(OSError, match="disk full"):
        write("zip", whole, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("what", "suffix"), [("overlay", ".avi"), ("overlay", ".MP4"), ("still", ".jpg"), ("trace", ""), ("zip", ".npz")]
)
def test_a_name_with_another_ending_is_refused(whole: Run, tmp_path: Path, what: str, suffix: str):
    write_to = {"overlay": export_overlay, "still": export_still, "trace": export_trace, "zip": export_zip}[what]
    arguments = {"overlay": (TOP1,), "still": (TOP1, 0)}.get(what, ())
    with pytest.raises(ExportError, match=f"^a{suffix} must end in "):
        write_to(whole, tmp_path / f"a{suffix}", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_would_harm_the_run_or_is_none_is_refused(copy: Run, tmp_path: Path):
    before = {path.name: path.read_bytes() for path in copy.path.iterdir()}
    (tmp_path / "link").symlink_to(copy.path)
    (tmp_path / "folder.mp4").mkdir()
    for out, message in [
        (copy.video_path, "lies inside the run"),
        (copy.path / "overlay.mp4", "lies inside the run"),
        (tmp_path / "link" / "video.mp4", "lies inside the run"),
        (tmp_path / "folder.mp4", "is a folder"),
        (tmp_path / "absent" / "a.mp4", "there is no folder"),
    ]:
        with pytest.raises(ExportError, match=message):
            export_overlay(copy, out, TOP1, overwrite=True)
    assert {path.name: path.read_bytes() for path in copy.path.iterdir()} == before


# --- two runs in one video --------------------------------------------------------------------------------------------


def plain_run(folder: Path, name: str, level: int, grid: TokenGrid = GRID) -> Run:
    frames = np.full_like(make_frames(grid=grid), level)
    return write_run(folder, make_record(grid=grid), frames, run_id=name)


def test_two_clips_stand_side_by_side_or_are_wiped_over_twice(tmp_path: Path):
    dark, light = plain_run(tmp_path / "runs", "dark", 40), plain_run(tmp_path / "runs", "light", 200)
    _, height, width, _ = dark.clip().frames.shape
    side = read_video(export_pair(dark, light, tmp_path / "side.mp4", "side", legend=False))
    assert side.fps == 8.0
    assert side.frames.shape == (GRID.num_video_frames, height, 2 * width + 8, 3)
    assert np.abs(side.frames[:, :, : width - 2].astype(int) - 40).max() < 12
    assert np.abs(side.frames[:, :, width + 10 :].astype(int) - 200).max() < 12

    wipe = read_video(export_pair(dark, light, tmp_path / "wipe.mp4", "wipe", legend=False)).frames
    assert wipe.shape == (2 * GRID.num_video_frames, height, width, 3)
    of_a = (wipe[:, height // 2, :, 0] < 120).mean(1)  # the share of the picture that is A's
    assert of_a[0] > 0.97
    assert of_a[-1] > 0.97
    assert of_a.min() < 0.1
    assert (np.diff(of_a[: len(of_a) // 2]) < 0).all()

    whole = read_video(export_pair(dark, light, tmp_path / "legend.mp4")).frames
    assert whole.shape[1] > height


def test_two_clips_that_do_not_fit_are_refused(tmp_path: Path):
    a = plain_run(tmp_path / "runs", "a", 40)
    longer = plain_run(tmp_path / "runs", "longer", 40, TokenGrid(4, 4, 5))
    with pytest.raises(ExportError, match=r"A has \d+×\d+, 9 frames at 8 a second and B \d+×\d+, 13 frames"):
        export_pair(a, longer, tmp_path / "a.mp4")
    with pytest.raises(ExportError, match="layout 'above' is not one of side, wipe"):
        export_pair(a, a, tmp_path / "a.mp4", "above")
    with pytest.raises(ExportError, match="lies inside the run"):
        export_pair(a, longer, longer.path / "a.mp4")
    assert not list(tmp_path.glob("*.mp4"))


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "heat"}, "mode 'heat' is not one of phenomena, top1, expert"),
        ({"mode": "expert"}, "index=None is not an expert: use 0 to 255"),
        ({"mode": "expert", "index": -1}, "index=-1 is not an expert"),
        ({"mode": "phenomenon"}, "index=None is not a phenomenon: use 0 to 16"),
        ({"mode": "phenomenon", "index": len(PHENOMENA)}, "index=17 is not a phenomenon"),
        ({"mode": "entropy", "index": 2}, "mode entropy shows every expert: leave index=2 out"),
        ({"mode": "phenomena", "index": 2}, "mode phenomena shows every phenomenon: leave index=2 out"),
        ({"step": 0}, "step=0 is not a denoising step: they are numbered from 1"),
        ({"step": -1}, "step=-1 is not"),
        ({"step": 1.5}, "step=1.5 is not"),
        ({"opacity": 1.01}, "opacity=1.01 must be from 0 to 1"),
        ({"opacity": float("nan")}, "opacity=nan must be"),
        ({"opacity": "half"}, "opacity=half must be"),
        ({"mode": "words"}, "index=None is not a word: use 0 to 39"),
        ({"mode": "words", "index": 40}, "index=40 is not a word"),
        ({"mode": "looks"}, "a region says whose attention is shown"),
        ({"mode": "top1", "region": (0, 0, 0, 0, 0)}, "a region says whose attention is shown"),
        ({"mode": "looks", "index": 1, "region": (0, 0, 0, 0, 0)}, "mode looks shows every place"),
        ({"mode": "looks", "region": (0, 2, 1, 0, 0)}, "a region is a latent frame, its first and last row"),
        ({"mode": "looks", "region": (0, 0, 0, 0)}, "a region is a latent frame"),
        ({"mode": "looks", "region": (0, 0, 0, 0, -1)}, "a region is a latent frame"),
        ({"mode": "looks", "region": (0, 0, 0, 0, 0.5)}, "a region is a latent frame"),
        ({"mode": "looks", "region": "00000"}, "a region is a latent frame"),
    ],
)
def test_settings_that_fit_no_run_cannot_be_built(settings: dict, message: str):
    with pytest.raises(ExportError, match=message):
        OverlaySettings(**settings)


def test_settings_that_do_not_fit_the_run_are_refused_and_name_what_would(whole: Run, tmp_path: Path):
    for settings, frame, message in [
        (OverlaySettings("expert", 6), 0, "the run has no expert 6: use 0 to 5"),
        (OverlaySettings("top1", step=5), 0, "the run has no denoising step 5: use 1 to 4"),
        (TOP1, 9, "frame=9 lies outside the clip: use 0 to 8"),
        (TOP1, -1, "frame=-1 lies outside"),
    ]:
        with pytest.raises(ExportError, match=message):
            export_still(whole, tmp_path / "a.png", settings, frame)
    assert list(tmp_path.iterdir()) == []


def test_attention_that_the_run_does_not_have_is_refused_and_named(whole: Run, attended: Run, tmp_path: Path):
    for run, settings, message in [
        (whole, OverlaySettings("words", 0), "was not recorded for run whole: make it again with that asked for"),
        (attended, OverlaySettings("words", 4), "the prompt has no word 4: use 0 to 3"),
        (attended, OverlaySettings("words", 0, step=3), "step 3 was not kept, only 2 of 4 were: use 2 or 4"),
        (attended, OverlaySettings("words", 0, step=1), "step 1 was not kept, only 2 of 4 were: use 2"),
        (attended, OverlaySettings("looks", region=(3, 0, 0, 0, 0)), "lies outside the grid of 3×4×5 tokens"),
        (attended, OverlaySettings("looks", region=(0, 0, 4, 0, 0)), "lies outside the grid"),
        (attended, OverlaySettings("looks", region=(0, 0, 0, 1, 5)), "lies outside the grid"),
    ]:
        with pytest.raises(ExportError, match=message):
            export_gif(run, tmp_path / "a.gif", settings)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_alone_needs_no_routing(bare: Run, tmp_path: Path):
    picture = read_png(export_still(bare, tmp_path / "a.png", None, 3))
    assert np.array_equal(picture, bare.clip().frames[3])


def test_steps_go_by_their_number_also_when_a_trace_keeps_only_some():
    kept = dataclasses.replace(make_trace(steps=51), steps=100)  # the recorder keeps 1, 3, … 99 and 100
    assert kept.step_numbers == (*range(1, 100, 2), 100)
    for step, place in [(1, 0), (3, 1), (99, 49), (100, 50), (None, 50)]:
        assert OverlaySettings("top1", step=step).kept_step(kept) == place
    with pytest.raises(ExportError, match="step 4 was not kept, only 51 of 100 were: use 3 or 5"):
        OverlaySettings("top1", step=4).kept_step(kept)
