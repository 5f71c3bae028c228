"""Geometry, traces and targets: which frame a token shows, and files that come back whole or are refused in a line."""

import io
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import GRID, NUM_EXPERTS, make_trace

from prophy import phenomena
from prophy.grid import TokenGrid
from prophy.phenomena import PHENOMENA
from prophy.routing import trace as routing
from prophy.routing.targets import TokenTargets
from prophy.routing.trace import MAX_STEPS, Routing, RoutingTrace, TraceRecorder

ARRAYS = (
    "timesteps",
    "topk_ids",
    "topk_weights",
    "phenomenon_maps",
    "mean_probs",
    "semantic_weights",
    "semantic_logits",
)

# --- the grid ---------------------------------------------------------------------------------------------------------


def test_video_frames_show_the_latent_frames_of_a_causal_autoencoder():
    """The first frame alone, then four at a time: frame f shows latent frame 0 if f = 0, else 1 + (f - 1) // 4."""
    grid = TokenGrid(4, 2, 3)
    assert [grid.latent_frame(f) for f in range(13)] == [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    assert grid.num_video_frames == 13
    assert [list(grid.video_frames(t)) for t in range(4)] == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


sizes = st.integers(1, 7)


@settings(max_examples=60, deadline=None)
@given(frames=sizes, height=sizes, width=sizes, cell=st.sampled_from([1, 8, 16]))
def test_every_token_and_every_frame_has_exactly_one_place(frames: int, height: int, width: int, cell: int):
    grid = TokenGrid(frames, height, width)
    assert [grid.index(*grid.position(n)) for n in range(grid.num_tokens)] == list(range(grid.num_tokens))
    assert grid.num_tokens == np.prod(grid.shape)
    shown = [f for t in range(frames) for f in grid.video_frames(t)]
    assert shown == list(range(grid.num_video_frames))
    assert all(f in grid.video_frames(grid.latent_frame(f)) for f in shown)
    assert TokenGrid.from_video(grid.num_video_frames, height * cell, width * cell, cell) == grid


def test_tokens_are_counted_frame_by_frame_row_by_row():
    assert GRID.index(2, 1, 3) == 2 * 4 * 5 + 1 * 5 + 3
    assert GRID.position(48) == (2, 1, 3)
    assert (np.arange(GRID.num_tokens).reshape(GRID.shape)[2, 1, 3]) == 48


def test_pooling_counts_pixels_and_frames():
    grid = TokenGrid(3, 2, 4)
    masks = np.random.default_rng(0).random((5, 9, 6, 12)) < 0.4
    pooled = grid.pool_masks(masks)
    assert pooled.shape == (5, grid.num_tokens)
    assert pooled.dtype == np.float32
    for p in range(5):
        for n in range(grid.num_tokens):
            t, h, w = grid.position(n)
            first, last = grid.video_frames(t)[0], grid.video_frames(t)[-1] + 1
            cell = masks[p, first:last, 3 * h : 3 * h + 3, 3 * w : 3 * w + 3]
            assert pooled[p, n] == pytest.approx(cell.mean(), abs=1e-6)


def test_pixels_show_the_token_that_covers_them():
    values = np.arange(GRID.num_tokens, dtype=np.int32)
    for height, width in ((32, 40), (36, 55), (4, 5)):
        shown = GRID.to_pixels(values, height, width)
        assert shown.shape == (9, height, width)
        assert shown.dtype == np.int32
        for f, y, x in ((0, 0, 0), (4, height - 1, width - 1), (5, height // 2, 1), (8, 1, width // 2)):
            expected = GRID.index(GRID.latent_frame(f), y * 4 // height, x * 5 // width)
            assert shown[f, y, x] == expected


def test_pooling_undoes_showing():
    values = np.random.default_rng(1).random(GRID.num_tokens).astype(np.float32)
    shown = GRID.to_pixels(values, 4 * 8, 5 * 8)
    np.testing.assert_allclose(GRID.pool_masks(shown[None])[0], values, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TokenGrid(0, 4, 5), ValueError, "frames=0 of a token grid must be a positive integer"),
        (lambda: TokenGrid(3, 4.0, 5), ValueError, "height=4.0"),
        (lambda: TokenGrid(3, 4, "5"), ValueError, "width='5'"),
        (lambda: TokenGrid.from_video(16, 64, 64, 8), ValueError, r"num_frames=16 is not 1 \+ 4k: use 17"),
        (lambda: TokenGrid.from_video(0, 64, 64, 8), ValueError, r"num_frames=0 is not 1 \+ 4k: use 1"),
        (lambda: TokenGrid.from_video(17, 64, 60, 8), ValueError, "60×64 pixels do not divide .* multiples of 8"),
        (lambda: GRID.index(3, 0, 0), IndexError, "outside a grid"),
        (lambda: GRID.index(0, -1, 0), IndexError, "outside a grid"),
        (lambda: GRID.position(60), IndexError, "token 60 lies outside a grid of 60"),
        (lambda: GRID.latent_frame(9), IndexError, "video frame 9 lies outside a clip of 9"),
        (lambda: GRID.latent_frame(-1), IndexError, "video frame -1"),
        (lambda: GRID.video_frames(3), IndexError, "latent frame 3"),
        (lambda: GRID.pool_masks(np.zeros((1, 8, 32, 40), bool)), ValueError, "masks of 8 frames do not fit"),
    ],
)
def test_places_outside_the_grid_are_refused(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()


# --- the list of phenomena --------------------------------------------------------------------------------------------


def test_phenomena_keep_their_number_and_order():
    """Part of every saved file: a change here needs another VERSION."""
    assert phenomena.VERSION == "wisa-17-v1"
    assert [p.index for p in PHENOMENA] == list(range(17))
    assert (PHENOMENA[0].id, PHENOMENA[6].id, PHENOMENA[10].id, PHENOMENA[16].id) == (
        "collision",
        "melting",
        "combustion",
        "unnatural_light_source",
    )
    assert [sum(p.family == family for p in PHENOMENA) for family in phenomena.FAMILIES] == [6, 6, 5]
    assert len({p.colour for p in PHENOMENA}) == 17
    assert phenomena.by_id("melting").question == "Describe the melting phenomenon in the video."
    with pytest.raises(KeyError, match="unknown phenomenon 'gravity': use one of collision"):
        phenomena.by_id("gravity")


# --- the trace --------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    make_trace().save(tmp_path / "routing.npz")
    return tmp_path / "routing.npz"


def refusal(path: Path) -> str:
    """The one line with which a trace is refused."""
    with pytest.raises(ValueError, match="is not a valid routing trace") as caught:
        RoutingTrace.load(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return str(caught.value)


def rewrite(path: Path, **changes) -> None:
    """Replace arrays of a saved trace; ``about`` is a dict of changed fields; None leaves an array out."""
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    about = {**json.loads(str(arrays["about"])), **changes.pop("about", {})}
    arrays = {**arrays, "about": np.array(json.dumps(about)), **changes}
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})


def test_a_trace_comes_back_as_it_was_saved(saved: Path):
    trace, again = make_trace(), RoutingTrace.load(saved)
    for name in ("grid", "prompt", "seed", "steps", "phenomena_version"):
        assert getattr(again, name) == getattr(trace, name)
    for name in ARRAYS:
        assert getattr(again, name).dtype == getattr(trace, name).dtype
        np.testing.assert_array_equal(getattr(again, name), getattr(trace, name))
    assert [path.name for path in saved.parent.iterdir()] == ["routing.npz"]


def test_a_trace_is_saved_whole_or_not_at_all(saved: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        make_trace(prompt="another").save(saved)
    assert RoutingTrace.load(saved).prompt == make_trace().prompt


def test_maps_of_a_trace_have_the_grid_s_axes():
    trace = make_trace()
    for step in range(trace.num_kept):
        top1 = trace.top1(step)
        assert top1.shape == GRID.shape
        for n in (0, 7, 31, 59):
            place = GRID.position(n)
            assert top1[place] == trace.topk_ids[step, n, 0]
            assert trace.phenomenon_map(4, step)[place] == np.float32(trace.phenomenon_maps[step, n, 4])
            for expert in range(NUM_EXPERTS):
                chosen = trace.topk_ids[step, n].tolist()
                weight = trace.topk_weights[step, n, chosen.index(expert)] if expert in chosen else 0
                assert trace.expert_map(expert, step)[place] == np.float32(weight)
        shares = trace.expert_shares(step)
        assert shares.shape == (GRID.frames, NUM_EXPERTS)
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
        assert shares[1, 2] == pytest.approx((top1[1] == 2).mean())


def test_entropy_runs_from_certain_to_undecided():
    probs = np.zeros((GRID.num_tokens, NUM_EXPERTS), np.float32)
    probs[:, 0] = 1
    probs[1] = 1 / NUM_EXPERTS
    entropy = replace(make_trace(), mean_probs=probs).entropy()
    assert entropy[0, 0, 0] == pytest.approx(0, abs=1e-4)
    assert entropy[0, 0, 1] == pytest.approx(1, abs=1e-5)


def test_a_missing_trace_is_not_a_damaged_one(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no routing trace at"):
        RoutingTrace.load(tmp_path / "routing.npz")


def test_a_trace_cut_anywhere_is_refused(saved: Path):
    content = saved.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        saved.write_bytes(content[:length])
        refusal(saved)


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
def test_a_flipped_byte_gives_the_same_trace_or_one_line(place: float, value: int, tmp_path_factory):
    path = tmp_path_factory.mktemp("flip") / "routing.npz"
    trace = make_trace()
    trace.save(path)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= value
    path.write_bytes(content)
    try:
        again = RoutingTrace.load(path)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017  most flips, not all, are noticed
    else:
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(again, name), getattr(trace, name))


class Bomb:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_inside_a_trace_is_never_run(saved: Path):
    witness = saved.parent / "witness"
    for name in ("topk_ids", "about"):
        make_trace().save(saved)
        with np.load(saved) as data:
            arrays = {key: data[key] for key in data.files}
        arrays[name] = np.array([Bomb(witness)], dtype=object)
        np.savez(saved, **arrays)
        assert "allow_pickle" in refusal(saved) or "Object arrays" in refusal(saved)
        assert not witness.exists()
    saved.write_bytes(pickle.dumps(Bomb(witness)))
    refusal(saved)
    assert not witness.exists()


def test_a_trace_that_would_fill_the_memory_is_refused_unread(saved: Path, monkeypatch: pytest.MonkeyPatch):
    """A few kilobytes that unpack to more than the limit, here a small one."""
    assert 2**27 <= routing.MAX_BYTES <= 2**30
    monkeypatch.setattr(routing, "MAX_BYTES", 2**21)
    assert RoutingTrace.load(saved).num_kept == 4
    rewrite(saved, mean_probs=np.zeros((GRID.num_tokens, 10_000), np.float32))
    assert saved.stat().st_size < 2**15
    monkeypatch.setattr(np, "load", None)
    assert "declares more than 2 MiB" in refusal(saved)


def test_an_array_that_claims_more_than_it_holds_is_refused(saved: Path):
    with np.load(saved) as data:
        arrays = {key: data[key] for key in data.files if key != "mean_probs"}
    np.savez(saved, **arrays)
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "<f4", "fortran_order": False, "shape": (60, 2**40)})
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("mean_probs.npy", header.getvalue() + bytes(64))
    refusal(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean_probs": None}, "arrays are missing or unknown"),
        ({"extra": np.zeros(3)}, "arrays are missing or unknown"),
        ({"topk_ids": np.zeros((4, 61, 2), np.uint8)}, "topk_ids has 61 along N, not 60"),
        ({"topk_ids": np.zeros((4, 60, 3), np.uint8)}, "has 2 along K, not 3"),
        ({"topk_ids": np.zeros((4, 60, 2), np.int64)}, "topk_ids must be uint8"),
        ({"topk_ids": np.full((4, 60, 2), 6, np.uint8)}, "topk_ids names expert 6 of 6"),
        ({"topk_weights": np.full((4, 60, 2), np.nan, np.float16)}, "topk_weights holds values that are not numbers"),
        ({"topk_weights": np.full((4, 60, 2), 2, np.float16)}, r"topk_weights must lie in \[0, 1\]"),
        ({"phenomenon_maps": np.zeros((4, 60, 16), np.float16)}, "has 16 along P, not 17"),
        ({"mean_probs": np.zeros((60,), np.float32)}, "mean_probs must be float32 with axes NE"),
        ({"semantic_weights": np.zeros((0,), np.float32)}, "has 0 along S"),
        ({"semantic_logits": np.zeros((4,), np.float32)}, "has 4 along S, not 5"),
        ({"timesteps": np.zeros((3,), np.float32)}, "along D, not 3"),
        ({"about": {"schema": 99}}, "made by another release"),
        ({"about": {"grid": [3, 5, 5]}}, "along N, not 75"),
        ({"about": {"grid": [3, 4]}}, "missing 1 required positional argument"),
        ({"about": {"grid": [3, 4, -5]}}, "width=-5"),
        ({"about": {"seed": "3"}}, "its description is malformed"),
        ({"about": {"prompt": None}}, "its description is malformed"),
        ({"about": {"steps": 2}}, "a trace of 4 kept of 2 steps is impossible"),
        ({"about": {"steps": True}}, "its description is malformed"),
        ({"about": {"phenomena_version": "wisa-18-v2"}}, "this release reads 'wisa-17-v1'"),
        ({"about": {"mean_probs": 1}}, "multiple values"),
    ],
)
def test_a_trace_that_contradicts_itself_is_refused(saved: Path, changes: dict, message: str):
    rewrite(saved, **changes)
    with pytest.raises(ValueError, match=message):
        RoutingTrace.load(saved)
    refusal(saved)


def test_a_description_that_is_not_an_object_is_refused(saved: Path):
    for about in ("[]", "3", "null", "{", ""):
        with np.load(saved) as data:
            arrays = {key: data[key] for key in data.files}
        np.savez(saved, **{**arrays, "about": np.array(about)})
        refusal(saved)


# --- the recorder -----------------------------------------------------------------------------------------------------


def make_routing(seed: int, tokens: int = GRID.num_tokens, batch: int = 2) -> Routing:
    """The routing of a forward pass; the first row is the unconditional pass."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, 4, generator=generator)
    probs = torch.randn(batch, tokens, NUM_EXPERTS, generator=generator).softmax(-1)
    weights, ids = probs.topk(2, dim=-1)
    maps = torch.rand(batch, tokens, len(PHENOMENA), generator=generator)
    return Routing(logits, logits.softmax(-1), probs, ids, weights, maps)


def record(total: int, given_steps: int | None = None) -> RoutingTrace:
    recorder = TraceRecorder(GRID, total)
    for step in range(total if given_steps is None else given_steps):
        recorder.record(1000.0 - step, make_routing(step))
    return recorder.finish("a red ball", 3)


def test_the_recorder_keeps_the_last_row_of_every_step_and_averages():
    trace = record(3)
    assert (trace.prompt, trace.seed, trace.steps, trace.num_kept) == ("a red ball", 3, 3, 3)
    assert trace.timesteps.tolist() == [1000.0, 999.0, 998.0]
    passes = [make_routing(step) for step in range(3)]
    for step, made in enumerate(passes):
        np.testing.assert_array_equal(trace.topk_ids[step], made.topk_ids_BNK[-1])
        np.testing.assert_array_equal(trace.topk_weights[step], made.topk_weights_BNK[-1].half())
        np.testing.assert_allclose(trace.phenomenon_maps[step], made.phenomenon_map_BNP[-1], atol=1 / 512 + 1e-6)
        assert (trace.phenomenon_maps[step] * 256 % 1 == 0).all(), "a map is kept to 1/256"
    for name, source in (("mean_probs", "probs_BNE"), ("semantic_weights", "semantic_weights_BS")):
        mean = torch.stack([getattr(made, source)[-1] for made in passes]).mean(0)
        np.testing.assert_allclose(getattr(trace, name), mean, atol=1e-6)


@pytest.mark.parametrize("total", [1, 63, 64, 65, 100, 128, 129, 300, 1000])
def test_the_recorder_is_bounded_and_keeps_evenly_spaced_steps_and_the_last(total: int):
    trace = record(total)
    kept = [int(1000 - t) for t in trace.timesteps]
    assert len(kept) <= MAX_STEPS
    assert len(kept) > min(total, MAX_STEPS) / 2
    assert (kept[0], kept[-1]) == (0, total - 1)
    assert trace.steps == total
    gaps = np.diff(kept[:-1])
    assert len(set(gaps.tolist())) <= 1


def test_the_recorder_stays_bounded_when_more_steps_come_than_announced():
    trace = record(10, given_steps=200)
    assert trace.num_kept <= MAX_STEPS
    assert trace.steps == 200


def test_averages_run_over_all_steps_also_those_not_kept():
    trace = record(100)
    assert trace.num_kept < 100
    mean = torch.stack([make_routing(step).probs_BNE[-1] for step in range(100)]).mean(0)
    np.testing.assert_allclose(trace.mean_probs, mean, atol=1e-6)


def test_the_recorder_shows_the_latest_step():
    recorder = TraceRecorder(GRID, 3)
    for step in range(2):
        recorder.record(1000.0 - step, make_routing(step))
        expected = make_routing(step).topk_ids_BNK[-1, :, 0].reshape(GRID.shape)
        np.testing.assert_array_equal(recorder.latest_top1(), expected)


def test_the_recorder_refuses_another_grid_and_an_empty_recording():
    with pytest.raises(ValueError, match="routing of 61 tokens does not fit a grid of 60"):
        TraceRecorder(GRID, 3).record(1.0, make_routing(0, tokens=61))
    with pytest.raises(ValueError, match="no denoising step was recorded: is a branch attached"):
        TraceRecorder(GRID, 3).finish("", 0)


# --- the targets ------------------------------------------------------------------------------------------------------


def make_targets(grid: TokenGrid = GRID) -> TokenTargets:
    values = np.random.default_rng(4).normal(size=(grid.num_tokens, len(PHENOMENA))).astype(np.float32)
    labelled = np.zeros(len(PHENOMENA), bool)
    labelled[[2, 10]] = True
    return TokenTargets(values, labelled, grid, "worlds")


def test_targets_come_back_as_they_were_saved(tmp_path: Path):
    targets = make_targets()
    targets.save(tmp_path / "targets.npz")
    again = TokenTargets.load(tmp_path / "targets.npz")
    np.testing.assert_array_equal(again.values, targets.values)
    np.testing.assert_array_equal(again.labelled, targets.labelled)
    assert (again.grid, again.source) == (targets.grid, targets.source)
    assert [path.name for path in tmp_path.iterdir()] == ["targets.npz"]


def test_targets_of_masks_are_shares_of_each_token():
    mask = np.zeros((9, 32, 40), bool)
    mask[5:9, 8:16, 24:28] = True  # latent frame 2, row 1, the left half of column 3
    targets = TokenTargets.from_masks({"combustion": mask}, GRID, "worlds")
    assert targets.labelled.nonzero()[0].tolist() == [10]
    expected = np.zeros_like(targets.values)
    expected[GRID.index(2, 1, 3), 10] = 0.5
    np.testing.assert_array_equal(targets.values, expected)
    with pytest.raises(KeyError, match="unknown phenomenon 'gravity'"):
        TokenTargets.from_masks({"gravity": mask}, GRID, "worlds")
    with pytest.raises(ValueError, match="masks of 8 frames"):
        TokenTargets.from_masks({"combustion": mask[:8]}, GRID, "worlds")


def test_resampling_to_the_same_grid_changes_nothing():
    targets = make_targets()
    np.testing.assert_allclose(targets.resample(GRID).values, targets.values, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("grid", [TokenGrid(5, 8, 10), TokenGrid(2, 2, 3), TokenGrid(7, 9, 11)])
def test_resampling_keeps_a_slope_along_its_own_axis(axis: int, grid: TokenGrid):
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    slope = np.linspace(0, 1, GRID.shape[axis], dtype=np.float32).reshape(shape)
    values = np.broadcast_to(slope, (*GRID.shape, 17)).reshape(-1, 17).astype(np.float32)
    after = replace(make_targets(), values=values).resample(grid)
    assert after.grid == grid
    maps = after.values.reshape(*grid.shape, 17)
    others = tuple(a for a in range(4) if a != axis)
    assert np.ptp(maps, axis=others).max() < 1e-5
    along = maps.mean(others)
    assert (np.diff(along) >= 0).all()
    assert along[-1] - along[0] > 0.4
    assert along.mean() == pytest.approx(0.5, abs=0.02)


def test_resampling_to_fewer_tokens_averages_areas():
    values = np.zeros((*GRID.shape, 17), np.float32)
    values[:, 0, 0] = 1.0
    coarse = replace(make_targets(), values=values.reshape(-1, 17)).resample(TokenGrid(3, 2, 1))
    np.testing.assert_allclose(coarse.values.reshape(3, 2, 17)[:, 0], 1 / 10, atol=1e-6)
    np.testing.assert_allclose(coarse.values.reshape(3, 2, 17)[:, 1], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": np.zeros((59, 17), np.float32)}, r"float32 of shape \(60, 17\)"),
        ({"values": np.zeros((60, 17))}, "not float64"),
        ({"values": np.full((60, 17), np.inf, np.float32)}, "not numbers: annotate the clip again"),
        ({"labelled": np.zeros(17)}, r"labelled must be bool of shape \(17,\)"),
        ({"labelled": np.zeros(16, bool)}, "labelled must be bool"),
        ({"source": ""}, "targets need a source"),
    ],
)
def test_targets_that_contradict_themselves_are_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(make_targets(), **changes)


def test_damaged_targets_are_refused_in_one_line(tmp_path: Path):
    path = tmp_path / "targets.npz"
    make_targets().save(path)
    whole = path.read_bytes()
    with np.load(path) as data:
        arrays = {name: data[name] for name in data.files}
    about = json.loads(str(arrays["about"]))
    damaged = [whole[:0], whole[:99], whole[:-30]]
    for changes in (
        {"about": np.array("[]")},
        {"about": np.array(json.dumps({**about, "phenomena_version": "wisa-18-v2"}))},
        {"about": np.array(json.dumps({k: v for k, v in about.items() if k != "phenomena_version"}))},
        {"about": np.array(json.dumps({k: v for k, v in about.items() if k != "source"}))},
        {"about": np.array(json.dumps({**about, "source": 3}))},
        {"about": np.array(json.dumps({**about, "grid": [3, 4, 6]}))},
        {"values": np.array([Bomb(tmp_path / "witness")], dtype=object)},
    ):
        buffer = io.BytesIO()
        np.savez(buffer, **{**arrays, **changes})
        damaged.append(buffer.getvalue())
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="targets") as caught:
            TokenTargets.load(path)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "witness").exists()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        TokenTargets.load(path)
