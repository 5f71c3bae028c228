"""Overlays show exactly what the trace recorded, at the place and time it was recorded."""

import tracemalloc
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import pytest
from synthetic import CELL, GRID, NUM_EXPERTS, make_frames, make_trace

from prophy.grid import TokenGrid
from prophy.phenomena import PHENOMENA
from prophy.runs.legend import Entry
from prophy.runs.overlay import (
    EXPERT_COLOURS,
    MODES,
    SHOWN_PEAK,
    expert_colour,
    greyed,
    legend_entries,
    overlay,
    rgb,
    routing_tint,
    token_strengths,
)
from prophy.runs.pictures import resized
from prophy.runs.sheets import GAP, MARGIN, contact_sheet

INDEX = {"expert": 2, "phenomenon": 10}


def test_opaque_top1_overlay_is_the_palette_of_the_recorded_expert_at_every_token():
    trace, frames = make_trace(), make_frames()
    for step in range(trace.num_kept):
        shown = overlay(frames, trace, "top1", step=step, opacity=1)
        for f in range(GRID.num_video_frames):
            for h in range(GRID.height):
                for w in range(GRID.width):
                    expert = trace.topk_ids[step, GRID.index(GRID.latent_frame(f), h, w), 0]
                    cell = shown[f, CELL * h : CELL * (h + 1), CELL * w : CELL * (w + 1)]
                    assert (cell == rgb(expert_colour(expert))).all()


def test_expert_overlay_mixes_by_the_recorded_weight():
    trace, frames = make_trace(), make_frames()
    shown = overlay(frames, trace, "expert", index=2, step=1, opacity=0.5)
    weights = trace.expert_map(2, 1)
    for f, h, w in [(0, 0, 0), (4, 3, 4), (5, 1, 2), (8, 2, 3)]:
        alpha = 0.5 * weights[GRID.latent_frame(f), h, w]
        pixel = frames[f, CELL * h, CELL * w]
        expected = pixel * (1 - alpha) + np.array(rgb(expert_colour(2))) * alpha
        assert np.abs(shown[f, CELL * h, CELL * w] - expected).max() <= 0.5


def test_all_phenomena_lie_over_a_grey_picture_each_token_in_the_colour_of_its_strongest():
    trace, frames = make_trace(), make_frames()
    shown = overlay(frames, trace, "phenomena", step=1, opacity=0.5)
    for f, h, w in [(0, 0, 0), (4, 3, 4), (5, 1, 2), (8, 2, 3)]:
        values = trace.phenomenon_maps[1, GRID.index(GRID.latent_frame(f), h, w)].astype(np.float32)
        alpha = 0.5 * values.max()
        luma = frames[f, CELL * h, CELL * w] @ np.array([0.2126, 0.7152, 0.0722])
        expected = (79.69 + 0.625 * luma) * (1 - alpha) + np.array(rgb(PHENOMENA[values.argmax()].colour)) * alpha
        assert np.abs(shown[f, CELL * h, CELL * w] - expected).max() <= 1


def test_the_legend_of_all_phenomena_names_those_of_the_clip_by_the_peak_of_their_map():
    maps = np.zeros_like(make_trace().phenomenon_maps)
    maps[-1, 3, 10], maps[-1, 4, 6], maps[-1, 5, 2] = 0.9, 0.4, SHOWN_PEAK / 2
    trace = replace(make_trace(), phenomenon_maps=maps)
    assert [entry.text for entry in legend_entries(trace, "phenomena")] == ["combustion: 90 %", "melting: 40 %"]


@pytest.mark.parametrize("mode", MODES)
def test_no_opacity_leaves_the_frames_alone(mode: str):
    frames = make_frames()
    assert (overlay(frames, make_trace(), mode, index=INDEX.get(mode), opacity=0) == frames).all()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_reads_the_trace_between_zero_and_one(mode: str):
    trace = make_trace()
    strengths = token_strengths(trace, mode, index=INDEX.get(mode), step=2)
    assert strengths.shape == GRID.shape
    assert strengths.dtype == np.float32
    assert strengths.min() >= 0
    assert strengths.max() <= 1
    assert strengths.std() > 0


def test_margin_is_the_first_weight_less_the_second():
    trace = make_trace()
    first, second = trace.topk_weights[0].astype(np.float32).T
    np.testing.assert_allclose(token_strengths(trace, "margin", step=0).ravel(), first - second, atol=1e-6)


def test_overlay_works_at_any_enlargement():
    trace = make_trace()
    large = make_frames().repeat(3, 1).repeat(3, 2)
    shown = overlay(large, trace, "top1", opacity=1)
    assert (shown[:, ::3, ::3] == overlay(make_frames(), trace, "top1", opacity=1)).all()


@pytest.mark.parametrize("mode", MODES)
def test_one_frame_is_laid_over_as_in_the_whole_clip(mode: str):
    trace, frames = make_trace(), make_frames()
    arguments = {"index": INDEX.get(mode), "step": 1, "opacity": 0.7}
    whole = overlay(frames, trace, mode, **arguments)
    tint = routing_tint(trace, mode, **arguments)
    for f in range(GRID.num_video_frames):
        np.testing.assert_array_equal(tint.over_frame(frames[f], f), whole[f])


def test_a_long_overlay_takes_little_more_memory_than_its_frames():
    grid = TokenGrid(21, 4, 5)
    trace, frames = make_trace(grid=grid), make_frames(grid=grid).repeat(4, 1).repeat(4, 2)
    tracemalloc.start()
    try:
        overlay(frames, trace)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.6 * frames.nbytes, f"{peak / frames.nbytes:.2f} times the frames"


def test_the_legend_names_every_expert_that_is_shown_with_its_share():
    trace = make_trace()
    entries = legend_entries(trace, "top1", step=1)
    shares = np.bincount(trace.top1(1).ravel(), minlength=NUM_EXPERTS) / GRID.num_tokens
    first = int(shares.argmax())
    assert entries[0] == Entry(f"expert {first}: {100 * shares[first]:.0f} %", (rgb(expert_colour(first)),))
    assert {entry.colours[0] for entry in entries} == {rgb(expert_colour(e)) for e in np.unique(trace.top1(1))}


def test_the_legend_of_one_expert_or_phenomenon_ends_in_its_colour():
    assert legend_entries(make_trace(), "expert", index=2)[0].colours[-1] == rgb(expert_colour(2))
    (entry,) = legend_entries(make_trace(), "phenomenon", index=10)
    assert entry.colours[-1] == rgb(PHENOMENA[10].colour)
    assert "combustion" in entry.text


def test_contact_sheet_holds_both_rows_and_names_the_experts():
    sheet = contact_sheet(make_frames(), make_trace(), columns=4, tile=80)
    height = 80 * GRID.height // GRID.width
    assert sheet.dtype == np.uint8
    assert sheet.shape[1:] == (2 * MARGIN + 4 * (80 + GAP) - GAP, 3)
    above, below = (sheet[top : top + height, MARGIN:-MARGIN] for top in (MARGIN, MARGIN + height + GAP))
    assert (above != below).any()
    assert (above[:, :80] == resized(make_frames()[:1], 80)[0]).all()
    assert sheet.shape[0] > 2 * (MARGIN + height + GAP), "there is a legend"


@pytest.mark.parametrize("mode", MODES)
def test_contact_sheet_has_every_mode(mode: str):
    assert contact_sheet(make_frames(), make_trace(), mode, index=INDEX.get(mode)).ndim == 3


def in_lab(colours) -> np.ndarray:
    """CIELAB, in which a distance of 2.3 is just seen."""
    return cv2.cvtColor(np.array([colours], np.float32) / 255, cv2.COLOR_RGB2LAB)[0]


PALETTES = {"experts": EXPERT_COLOURS, "phenomena": tuple(phenomenon.colour for phenomenon in PHENOMENA)}


@pytest.mark.parametrize("name", PALETTES)
def test_no_colour_vanishes_on_light_dark_or_grey_pictures(name: str):
    colours = np.array([rgb(colour) for colour in PALETTES[name]], float)
    cream, sky, paper, floor, night, black = (
        np.array(ground, float)
        for ground in [(245, 239, 225), (214, 232, 245), (250,) * 3, (178, 168, 148), (20, 24, 40), (8,) * 3]
    )
    greys = [greyed(np.full(3, level, np.uint8)).astype(float) for level in (0, 128, 255)]
    for ground in (cream, sky, paper, floor, night, black, *greys):
        laid = 0.45 * colours + 0.55 * ground
        seen = np.linalg.norm(in_lab(laid) - in_lab([ground]), axis=1)
        assert seen.min() > 14, (PALETTES[name][seen.argmin()], ground)


@pytest.mark.parametrize("name", PALETTES)
def test_no_two_colours_are_taken_for_each_other(name: str):
    for a, b in combinations(PALETTES[name], 2):
        distance = np.linalg.norm(in_lab([rgb(a)]) - in_lab([rgb(b)]))
        assert distance > 17, (a, b, distance)


def test_expert_colours_are_distinct():
    assert len(set(EXPERT_COLOURS)) == len(EXPERT_COLOURS) >= 8
    assert expert_colour(len(EXPERT_COLOURS)) == EXPERT_COLOURS[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "heat"}, "mode 'heat' is not one of phenomena, top1, expert"),
        ({"mode": "expert"}, "index=None is not one of the 6 experts"),
        ({"mode": "expert", "index": NUM_EXPERTS}, "index=6 is not one of the 6 experts"),
        ({"mode": "expert", "index": -1}, "index=-1"),
        ({"mode": "phenomenon", "index": len(PHENOMENA)}, "is not one of the 17 phenomena"),
        ({"step": 4}, "step=4 is not one of the 4 steps kept"),
        ({"step": -5}, "step=-5"),
        ({"opacity": 1.1}, "opacity=1.1 must be"),
        ({"frames": make_frames()[:-1]}, "the clip has 8 frames, its routing 9"),
        ({"frames": make_frames() / 255}, "frames must be uint8"),
        ({"trace": make_trace(grid=TokenGrid(2, 4, 5))}, "the clip has 9 frames, its routing 5"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        overlay(**{"frames": make_frames(), "trace": make_trace(), **arguments})
