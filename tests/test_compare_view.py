"""Two runs against each other: distances by their definition, what is refused, and the view's arithmetic under node."""

import base64
import dataclasses
import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from synthetic import CELL, GRID, NUM_EXPERTS, make_frames, make_record, make_trace

from prophy.grid import TokenGrid
from prophy.routing.distance import jensen_shannon, pixel_difference, routing_difference
from prophy.runs import overlay
from prophy.runs.store import Run, write_run
from prophy.ui.views.compare import CompareView
from prophy.ui.views.component import STATIC, template
from prophy.ui.views.routing import base64_of

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node on PATH: the browser tests remain")


def run_js(expression: str, value: object = None) -> object:
    """Evaluate an expression of ``js`` (compare.js) and ``value``."""
    script = (
        f"const js = require({json.dumps(str(STATIC / 'compare.js'))});"
        "const value = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        f"process.stdout.write(JSON.stringify({expression}));"
    )
    done = subprocess.run(["node", "-e", script], input=json.dumps(value), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def distance_by_definition(p: list[float], q: list[float]) -> float:
    """Lin's divergence in bits, term by term, and its root."""
    p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
    bits = 0.0
    for x, y in zip(p, q, strict=True):
        for weight in (x, y):
            if weight > 0:
                bits += weight * math.log2(weight / ((x + y) / 2)) / 2
    return math.sqrt(max(0.0, bits))


def with_routing(seed: int, **changes: object):
    return dataclasses.replace(make_trace(seed=seed), **changes)


# --- distances -------------------------------------------------------------------------------------------------------


def test_the_distance_is_the_literal_definition():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.full(7, 0.4), (2, 50))
    p[:10, :5] = 0  # experts without weight, and rows that do not sum to 1
    expected = [distance_by_definition(list(x), list(y)) for x, y in zip(p, q, strict=True)]
    found = jensen_shannon(p, q)
    print("largest difference", np.abs(found - expected).max())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_distance_is_a_metric_between_zero_and_one():
    rng = np.random.default_rng(1)
    p, q, r = rng.dirichlet(np.full(5, 0.3), (3, 200)).astype(np.float32)
    assert np.array_equal(jensen_shannon(p, q), jensen_shannon(q, p))
    assert np.array_equal(jensen_shannon(p, p), np.zeros(200))
    assert jensen_shannon(np.array([0.5, 0.5, 0, 0]), np.array([0, 0, 0.1, 0.9])) == 1
    assert (jensen_shannon(p, q) <= jensen_shannon(p, r) + jensen_shannon(r, q) + 1e-6).all()
    assert jensen_shannon(p, 3 * q) == pytest.approx(jensen_shannon(p, q), abs=1e-6)


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        ([1, 0], [1, 0, 0], "shapes \\(2,\\) and \\(3,\\)"),
        ([1.5, -0.5], [1, 0], "negative"),
        ([np.nan, 1], [1, 0], "not numbers"),
        ([0, 0], [1, 0], "no weight on any expert"),
    ],
)
def test_what_is_no_distribution_is_refused(p: list[float], q: list[float], message: str):
    with pytest.raises(ValueError, match=message):
        jensen_shannon(np.array(p, float), np.array(q, float))


@pytest.mark.parametrize("step", [None, 0, 2, -1])
def test_a_difference_of_runs_compares_each_token_with_itself(step: int | None):
    a, b = make_trace(seed=3), make_trace(seed=4)
    difference = routing_difference(a, b, step)
    assert difference.shape == GRID.shape
    assert difference.dtype == np.float32
    for t, h, w in [(0, 0, 0), (1, 3, 2), (2, 1, 4)]:
        token = GRID.index(t, h, w)
        rows = []
        for trace in (a, b):
            if step is None:
                rows.append([float(x) for x in trace.mean_probs[token]])
            else:
                row = [0.0] * NUM_EXPERTS
                for expert, weight in zip(trace.topk_ids[step, token], trace.topk_weights[step, token], strict=True):
                    row[expert] = float(weight)
                rows.append(row)
        assert difference[t, h, w] == pytest.approx(distance_by_definition(*rows), abs=1e-6)
    assert np.array_equal(difference, routing_difference(b, a, step))
    assert not routing_difference(a, a, step).any()


def test_runs_that_choose_other_experts_everywhere_are_one_apart():
    a = make_trace()
    low, high = np.zeros_like(a.topk_ids), np.zeros_like(a.topk_ids)
    low[..., 1], high[..., 0], high[..., 1] = 1, 2, 3
    a, b = with_routing(3, topk_ids=low), with_routing(4, topk_ids=high)
    assert (routing_difference(a, b, 1) == 1).all()


def test_routing_that_cannot_be_compared_is_refused():
    a = make_trace()
    with pytest.raises(ValueError, match="grids \\(3, 4, 5\\) and \\(3, 5, 4\\) cannot be compared"):
        routing_difference(a, make_trace(grid=TokenGrid(3, 5, 4)))
    fewer = a.mean_probs[:, :-1] / a.mean_probs[:, :-1].sum(1, keepdims=True)
    ids = np.minimum(a.topk_ids, NUM_EXPERTS - 2)
    with pytest.raises(ValueError, match="6 and 5 experts cannot be compared"):
        routing_difference(a, with_routing(3, mean_probs=fewer, topk_ids=ids))
    with pytest.raises(ValueError, match="step=4 is not one of the 4 steps kept"):
        routing_difference(a, a, 4)


def test_pictures_differ_by_their_mean_absolute_difference_frame_by_frame():
    a, b = make_frames(0), make_frames(1)
    b[2] = a[2]
    found = pixel_difference(a, b)
    assert found.shape == (GRID.num_video_frames,)
    np.testing.assert_allclose(found, np.abs(a.astype(float) - b).mean((1, 2, 3)) / 255, atol=1e-6)
    assert found[2] == 0
    assert pixel_difference(np.zeros_like(a), np.full_like(a, 255)).tolist() == [1] * len(a)
    with pytest.raises(ValueError, match="use runs of one length and size"):
        pixel_difference(a, b[:-1])
    with pytest.raises(ValueError, match="clips must be uint8"):
        pixel_difference(a, b / 255)


# --- the view's value ------------------------------------------------------------------------------------------------


def write(root: Path, name: str, seed: int = 3, *, has_branch: bool = True, grid: TokenGrid = GRID, fps=8.0) -> Run:
    record = make_record(name, seed, grid)
    record = dataclasses.replace(record, settings={**record.settings, "fps": fps})
    trace = make_trace(name, seed, grid) if has_branch else None
    return write_run(root, record, make_frames(seed, grid), trace=trace, run_id=name)


def test_a_pair_of_runs_becomes_a_value_that_travels_as_json(tmp_path: Path):
    a, b = write(tmp_path, "first"), write(tmp_path, "second", 4)
    view = CompareView.of(a, b, labels=("as it is", "expert 3 muted"))
    assert json.loads(json.dumps(view.as_json()))["b"]["prompt"] == "second"
    assert view.labels == ("as it is", "expert 3 muted")
    levels = np.frombuffer(base64.b64decode(view.difference), np.uint8).reshape(GRID.shape)
    assert np.array_equal(levels, np.round(255 * routing_difference(a.trace(), b.trace())))
    assert levels.std() > 0
    assert view.pixels == pytest.approx(pixel_difference(a.clip().frames, b.clip().frames), abs=1e-5)
    assert CompareView.of(a, a).pixels == [0] * GRID.num_video_frames


def test_a_run_without_a_branch_is_compared_by_its_pictures(tmp_path: Path):
    view = CompareView.of(write(tmp_path, "with"), write(tmp_path, "without", 4, has_branch=False))
    assert view.a.routing is not None
    assert view.b.routing is None
    assert view.difference is None
    assert len(view.pixels) == GRID.num_video_frames


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": TokenGrid(2, 4, 5)}, "A has 9 frames and B 5: compare runs of one length, rate and size"),
        ({"fps": 12.5}, "A has 8 frames a second and B 12.5: compare"),
        ({"grid": TokenGrid(3, 5, 4)}, f"A has {5 * CELL}×{4 * CELL} pixels and B {4 * CELL}×{5 * CELL}: compare"),
    ],
    ids=["frames", "fps", "size"],
)
def test_runs_of_another_shape_are_refused_in_one_line(tmp_path: Path, changes: dict, message: str):
    a, b = write(tmp_path, "first"), write(tmp_path, "second", **changes)
    with pytest.raises(ValueError, match=message) as refused:
        CompareView.of(a, b)
    assert "\n" not in str(refused.value)


# --- compare.js ------------------------------------------------------------------------------------------------------


@needs_node
def test_the_browsers_difference_colours_are_the_scale_of_the_saved_pictures(tmp_path: Path):
    a, b = write(tmp_path, "first"), write(tmp_path, "second", 4)
    view = CompareView.of(a, b)
    cells = run_js(
        "(() => { const bytes = (text) => new Uint8Array(Buffer.from(text, 'base64'));"
        " return [0, 1, 2].map((t) => [...js.differenceColours("
        "bytes(value.levels), bytes(value.scale), t, value.perFrame, 0.6)]); })()",
        {"levels": view.difference, "scale": base64_of(overlay.level_colours()), "perFrame": GRID.height * GRID.width},
    )
    rgba = np.array(cells).reshape(*GRID.shape, 4)
    levels = np.round(255 * routing_difference(a.trace(), b.trace())).astype(np.uint8)
    assert np.array_equal(rgba[..., :3], overlay.level_colours()[levels])
    assert (rgba[..., 3] == 153).all()


@needs_node
def test_the_clock_names_every_frame_for_its_own_time_and_wraps():
    for fps in (8, 16, 23.976, 30):
        starts = [1000 * frame / fps for frame in range(40)]
        assert run_js(f"value.map((ms) => js.loopFrame(ms, {fps}, 17))", starts) == [f % 17 for f in range(40)]
        ends = [1000 * (frame + 1) / fps - 0.01 for frame in range(40)]
        assert run_js(f"value.map((ms) => js.loopFrame(ms, {fps}, 17))", ends) == [f % 17 for f in range(40)]
    assert run_js("js.loopFrame(-5, 8, 17)") == 0


@needs_node
def test_two_clips_never_take_more_memory_than_the_limit_and_keep_their_shape():
    assert run_js("js.heldSize(512, 512, 17)") == [512, 512]
    assert run_js("js.heldSize(512, 512, 81)") == [512, 512]
    for width, height, frames in [(1280, 720, 81), (832, 480, 241), (512, 512, 5000)]:
        held = run_js(f"js.heldSize({width}, {height}, {frames})")
        assert 2 * 4 * frames * math.prod(held) <= run_js("js.HELD_BYTES") == 256 * 2**20
        assert held[0] / held[1] == pytest.approx(width / height, rel=0.02)
        assert 2 * 4 * frames * math.prod(held) > 0.95 * 256 * 2**20


@needs_node
def test_a_slider_position_means_the_same_share_of_two_lists_of_steps():
    assert run_js("[0, 7, 19].map((p) => js.stepAt(p, 20, 20))") == [0, 7, 19]
    assert run_js("[0, 1, 2, 3, 4].map((p) => js.stepAt(p, 5, 50))") == [0, 12, 25, 37, 49]
    assert run_js("js.stepAt(0, 1, 50)") == 49


@needs_node
def test_a_kept_step_is_where_its_position_says():
    assert run_js("[0, 7, 19].map((d) => js.stepAt(js.positionOf(d, 20, 20), 20, 20))") == [0, 7, 19]
    assert run_js("[0, 12, 25, 37, 49].map((d) => js.positionOf(d, 5, 50))") == [0, 1, 2, 3, 4]
    assert run_js("[js.positionOf(0, 1, 1), js.positionOf(0, 5, 1)]") == [0, 4]


@needs_node
def test_the_level_of_a_region_is_the_mean_of_its_tokens():
    levels = np.arange(60).reshape(GRID.shape) * 4
    asked = {"levels": levels.ravel().tolist(), "grid": {"width": GRID.width, "height": GRID.height}}
    for latent, rows, columns in [(0, (0, 0), (0, 0)), (1, (2, 2), (3, 3)), (2, (1, 3), (0, 4))]:
        region = {"rows": rows, "columns": columns}
        found = run_js("js.regionLevel(value.levels, value.grid, value.latent, value.region)", {
            **asked, "latent": latent, "region": region,
        })  # fmt: skip
        part = levels[latent, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
        assert found == pytest.approx(part.mean() / 255)


@needs_node
def test_an_address_of_two_runs_is_read_as_it_was_written_and_anything_else_is_not_there():
    rest = {"run": None, "view": "expert", "expert": 2, "opacity": 60}
    wiped = run_js("js.pairAddress('x', 'y', 'wipe', 29.6, value)", rest)
    assert wiped == {"a": "x", "b": "y", "layout": "wipe", "wipe": 30, "view": "expert", "expert": 2, "opacity": 60}
    assert "wipe" not in run_js("js.pairAddress('x', 'y', 'side', 30, value)", rest)
    read = run_js("value.map((search) => js.readLayout(search))", [
        "?a=x&b=y&layout=wipe&wipe=30", "?layout=amplified", "?layout=above&wipe=-1", "?wipe=999", "?wipe=1e1", "",
    ])  # fmt: skip
    assert [(one["layout"], one["wipe"]) for one in read] == [
        ("wipe", 30), ("amplified", None), (None, None), (None, 100), (None, None), (None, None),
    ]  # fmt: skip
    named = run_js("value.map((search) => js.namesPair(search, 'x', 'y'))", ["?a=x&b=y", "?a=y&b=x", "?a=x", "?run=x"])
    assert named == [True, False, False, False]


@needs_node
def test_pairs_of_bars_share_one_scale_and_mark_what_one_has_more():
    a, b = [0.1, 0.5, 0.0], [0.4, 0.25, 0.0]
    pairs = run_js("js.pairedBars(...value)", [a, b])
    assert [[bar["weight"] for bar in pair] for pair in pairs] == [list(pair) for pair in zip(a, b, strict=True)]
    assert [[bar["height"] for bar in pair] for pair in pairs] == [[0.2, 0.8], [1, 0.5], [0, 0]]
    assert [[bar["common"] for bar in pair] for pair in pairs] == [[1, 0.25], [0.5, 1], [0, 0]]
    lonely = run_js("js.pairedBars(value, null)", a)
    assert [[bar["height"] for bar in pair] for pair in lonely] == [[0.2, 0], [1, 0], [0, 0]]


@needs_node
def test_keys_move_the_divider_inside_the_stage():
    moved = run_js("value.map(([key, wipe]) => js.wipeAfterKey(key, wipe))", [
        ["ArrowLeft", 50], ["ArrowRight", 50], ["ArrowRight", 99], ["ArrowLeft", 1], ["Home", 70], ["End", 3],
        ["PageUp", 50], ["PageDown", 50], ["a", 50],
    ])  # fmt: skip
    assert moved == [48, 52, 100, 0, 0, 100, 60, 40, None]


@needs_node
def test_levels_are_summed_up_between_zero_and_one():
    assert run_js("js.levelSummary(value)", [0, 51, 255]) == {"mean": pytest.approx(0.4), "largest": 1}


@needs_node
def test_the_verdict_says_in_words_whether_a_difference_can_be_seen():
    said = run_js("value.map((pixels) => js.verdict(pixels))", [[0, 0], [0.3 / 255] * 2, [0, 2 / 255], [0.1, 0.2]])
    assert said[0] == "The pictures do not differ: they are the same, frame by frame."
    assert said[1].endswith("0.3 of 255 on average, 0.3 in the frame that differs most: this is not visible.")
    assert said[2].endswith("1.0 of 255 on average, 2.0 in the frame that differs most: this is hard to see.")
    assert said[3].endswith("this is visible.")


@needs_node
def test_a_difference_is_doubled_until_it_can_be_seen_and_no_further():
    assert run_js("value.map((pixels) => js.doublings(pixels))", [[0], [0.5], [0.1], [0.03], [0.0001]]) == [
        0,
        0,
        1,
        2,
        6,
    ]


# --- the templates ---------------------------------------------------------------------------------------------------


def test_the_charts_of_a_token_are_one_file_in_three_places():
    charts = (STATIC / "token_charts.html").read_text()
    assert charts.count("<svg") == 2
    assert template("compare_view").count(charts) == 2
    assert template("routing_view").count(charts) == 1
    assert template("compare_view").count((STATIC / "side_head.html").read_text()) == 2


@pytest.mark.parametrize("path", STATIC.glob("*_view.html"), ids=lambda path: path.stem)
def test_no_part_of_a_template_is_left_out(path: Path):
    assert "<!-- part:" not in template(path.stem)
