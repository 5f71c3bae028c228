"""Recorded attention is the stock model's own, and recording it changes nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import make_pipeline
from diffusers import FirstBlockCacheConfig
from diffusers.models.transformers import transformer_wan
from small_cogvideox import make_cogvideox
from synthetic import GRID, make_attention, make_frames, make_record, make_trace
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import prophy.backbones.attention as attention_module
from prophy.assets import gallery_dir
from prophy.backbones.attention import AttentionRecorder, check_records, listening, record_attention
from prophy.catalogue.published import PUBLISHED
from prophy.files import file_sha256
from prophy.generation.checks import check
from prophy.generation.generate import GenerationError, generate
from prophy.generation.identity import branch_switched
from prophy.generation.settings import GenerationSettings
from prophy.generation.words import words_in
from prophy.grid import TokenGrid
from prophy.memory.footprint import footprint
from prophy.memory.offload import apply
from prophy.memory.profiles import OffloadMode, Profile
from prophy.routing.attention import (
    MAX_CELLS,
    MAX_STEPS,
    MAX_WORD_BYTES,
    MAX_WORD_CHARS,
    AttentionTrace,
    Cells,
    Words,
    kept_steps,
)
from prophy.routing.trace import _ARRAYS as ROUTING_ARRAYS
from prophy.runs.export import export_zip
from prophy.runs.record import RunError
from prophy.runs.store import read_run, write_run
from prophy.ui.views.routing import AttentionBytes, RoutingBytes

PROMPT = "a red ball bounces on the floor"
SETTINGS = GenerationSettings(PROMPT, seed=3, steps=3, guidance=3.0, frames=9, height=32, width=48)
WORDS = tuple(PROMPT.split())


@pytest.fixture(scope="module")
def pipeline():
    from conftest import make_branch, make_transformer

    transformer = make_transformer()
    return make_pipeline(transformer, make_branch(transformer, trained=True))


@pytest.fixture(scope="module")
def made(pipeline):
    return generate(pipeline, SETTINGS, attention=True)


def layers_of(pipeline) -> list[torch.nn.Module]:
    return [layer for block in pipeline.transformer.blocks for layer in (block.attn1, block.attn2)]


def hooks_of(pipeline) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in pipeline.transformer.modules()]


def test_recording_leaves_every_bit_and_every_stock_processor_in_place(pipeline, made):
    processors, before = [layer.processor for layer in layers_of(pipeline)], hooks_of(pipeline)
    seen = []

    def on_step(_) -> None:
        seen.append([layer.processor for layer in layers_of(pipeline)] == processors)

    plain = generate(pipeline, SETTINGS)
    again = generate(pipeline, SETTINGS, on_step=on_step, attention=True)
    assert plain.attention is None
    assert np.array_equal(plain.frames, made.frames)
    assert np.array_equal(again.frames, made.frames)
    for name in ROUTING_ARRAYS:
        assert np.array_equal(getattr(plain.trace, name), getattr(made.trace, name)), name
    assert seen == [True] * 3
    assert [layer.processor for layer in layers_of(pipeline)] == processors
    assert hooks_of(pipeline) == before


class Stock(NamedTuple):
    """What the stock layers of a generation without its branch attended to, and what was recorded of it."""

    recorded: AttentionTrace
    to_text_NL: list[torch.Tensor]  # of each conditional pass, mean over heads and blocks
    to_places_NN: list[torch.Tensor]


@pytest.fixture(scope="module")
def stock(pipeline, made) -> Stock:
    tokens, words = made.attention.grid.num_tokens, [words_in(pipeline.tokenizer, PROMPT)]
    to_text, to_places = [], []
    dispatch = transformer_wan.dispatch_attention_fn

    def watched(query, key, value, **options):
        if query.shape[1] == tokens:
            scores = torch.einsum("bnhd,bmhd->bhnm", query.float(), key.float()) / query.shape[-1] ** 0.5
            (to_places if key.shape[1] == tokens else to_text).append(scores.softmax(-1).mean((0, 1)))
        return dispatch(query, key, value, **options)

    blocks = len(pipeline.transformer.blocks)

    def conditional(found: list[torch.Tensor]) -> list[torch.Tensor]:
        passes = [torch.stack(found[i : i + blocks]).mean(0) for i in range(0, len(found), blocks)]
        assert len(passes) == 6, "three steps of two passes"
        return passes[::2]  # the conditional pass is the first of each step

    with branch_switched(pipeline, False):  # its blocks have attention of their own
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transformer_wan, "dispatch_attention_fn", watched)
            plain = generate(pipeline, SETTINGS)
        assert plain.trace is None
        with record_attention([pipeline.transformer], made.attention.grid, words, 3) as recorder:
            generate(pipeline, SETTINGS)
    return Stock(recorder.finish(0, PROMPT, SETTINGS.seed), conditional(to_text), conditional(to_places))


def test_a_words_map_is_the_mean_over_heads_and_blocks_of_the_attention_to_its_tokens(pipeline, stock):
    attention, places = stock.recorded, words_in(pipeline.tokenizer, PROMPT).places
    assert attention.words == WORDS
    assert attention.steps.tolist() == [1, 2, 3]
    for kept in range(3):
        for word, tokens in enumerate(places):
            expected = stock.to_text_NL[kept][:, list(tokens)].sum(1).numpy().reshape(attention.grid.shape)
            near = attention.word_peaks[word] / 255 + 1e-6
            assert np.abs(attention.word_map(word, kept) - expected).max() <= near


def test_where_a_token_looks_is_the_mean_self_attention_of_the_stock_layers(stock):
    attention, expected = stock.recorded, torch.stack(stock.to_places_NN).mean(0).numpy()
    assert attention.cell_side == 1
    for token in range(attention.grid.num_tokens):
        shown = attention.attended_from(token)
        assert np.abs(shown.ravel() - expected[token]).max() <= attention.cell_peaks[token] / 255 + 1e-6
        assert shown.sum() == pytest.approx(1, abs=0.2)


def test_what_is_recorded_does_not_depend_on_how_much_is_computed_at_once(pipeline, made, monkeypatch):
    monkeypatch.setattr(attention_module, "_MOST_WEIGHTS", 100)  # one head and a query or two
    again = generate(pipeline, SETTINGS, attention=True).attention
    for name in ("word_peaks", "cell_peaks"):
        assert np.allclose(getattr(again, name), getattr(made.attention, name), rtol=1e-4), name
    for name in ("word_maps", "cell_maps"):
        assert np.abs(getattr(again, name).astype(int) - getattr(made.attention, name)).max() <= 1, name


def test_a_prompt_that_is_its_own_negative_prompt_is_recorded_once_a_step(pipeline, made):
    same = generate(pipeline, replace(SETTINGS, negative_prompt=PROMPT), attention=True).attention
    assert same.steps.tolist() == [1, 2, 3]
    assert same.total_steps == 3
    for word in range(len(WORDS)):  # the first step has the same noise
        near = made.attention.word_peaks[word] / 255
        assert np.allclose(same.word_map(word, 0), made.attention.word_map(word, 0), atol=near)


class Counting(AttentionRecorder):
    """Tensors without content cannot be kept."""

    def end(self) -> None:
        assert self._to_words
        assert self._to_cells


@torch.no_grad()
def test_at_full_size_recording_takes_no_more_memory_than_the_layers_do_anyway():
    """From shapes alone: two blocks of Wan2.1 1.3B, whose clip of 81 frames at 480p has 32,760 tokens."""
    config = {**PUBLISHED["wan2.1-1.3b"].transformer, "num_layers": 2}
    with torch.device("meta"):
        transformer = transformer_wan.WanTransformer3DModel(**config).to(torch.bfloat16).eval()
    grid = TokenGrid(21, 30, 52)
    words = [Words(tuple(f"word{i}" for i in range(40)), tuple((i,) for i in range(40)))]

    def compute() -> None:
        latents = torch.empty(1, 16, 21, 60, 104, device="meta", dtype=torch.bfloat16)
        text = torch.empty(1, 512, config["text_dim"], device="meta", dtype=torch.bfloat16)
        transformer(latents, torch.empty(1, device="meta"), text, return_dict=False)

    plain = footprint(compute).peak
    recorder = Counting(grid, words, 1)
    with listening([transformer], recorder):
        recorded = footprint(compute).peak
    assert recorder._blocks == 2
    kept = 4 * (grid.num_tokens * 40 + 2 * recorder._cells.count**2)  # sums over blocks
    assert recorded <= plain + 2 * kept, f"{(recorded - plain) >> 20} MiB more than {plain >> 20}"


@pytest.mark.parametrize("mode", list(OffloadMode))
def test_attention_is_recorded_in_every_memory_profile(tiny_pipeline, made, mode: OffloadMode):
    apply(tiny_pipeline, Profile(mode), "cpu")
    again = generate(tiny_pipeline, SETTINGS, attention=True)
    assert np.array_equal(again.frames, made.frames)
    assert np.allclose(again.attention.word_peaks, made.attention.word_peaks, rtol=1e-4)
    assert np.abs(again.attention.word_maps.astype(int) - made.attention.word_maps).max() <= 1
    assert np.abs(again.attention.cell_maps.astype(int) - made.attention.cell_maps).max() <= 1


def test_clips_of_one_batch_are_recorded_as_if_alone(pipeline, made):
    other = replace(SETTINGS, prompt="a blue candle burns on the left", seed=8)
    both = generate(pipeline, [other, SETTINGS], attention=True)
    assert [one.attention.prompt for one in both] == [other.prompt, PROMPT]
    assert both[0].attention.words == tuple(other.prompt.split())
    for word in range(len(WORDS)):
        assert np.allclose(both[1].attention.word_map(word), made.attention.word_map(word), atol=1e-3)


def test_a_run_keeps_what_was_recorded_and_its_digest(made, tmp_path: Path):
    run = made.save(tmp_path)
    attention = run.attention()
    assert attention.words == WORDS
    for name in ("word_maps", "word_peaks", "cell_maps", "cell_peaks", "steps"):
        assert np.array_equal(getattr(attention, name), getattr(made.attention, name)), name
    document = json.loads((run.path / "run.json").read_text())
    assert document["files"]["attention.npz"]["sha256"] == file_sha256(run.path / "attention.npz")
    with np.load(run.path / "routing.npz") as arrays:
        assert set(arrays.files) == {"about", *ROUTING_ARRAYS}
    import zipfile

    with zipfile.ZipFile(export_zip(run, tmp_path / "run.zip")) as archive:
        archive.extractall(tmp_path / "unpacked")
    assert read_run(tmp_path / "unpacked" / run.id).attention().words == WORDS


def test_a_run_of_before_has_no_recorded_attention_and_is_read_as_ever():
    run = read_run(gallery_dir() / "explosion")
    assert run.attention() is None
    assert RoutingBytes.of(run.trace()).attention is None


def test_a_recording_that_is_damaged_or_of_another_run_is_refused_in_one_line(made, tmp_path: Path):
    run = made.save(tmp_path)
    path = run.path / "attention.npz"
    whole = path.read_bytes()
    for data in (b"", whole[:200], whole[:-30], b"x" * 500):
        path.write_bytes(data)
        for refused in (run.attention, lambda: read_run(run.path)):
            with pytest.raises(RunError, match=r"attention\.npz") as caught:
                refused()
            assert "\n" not in str(caught.value)
    replace(made.attention, prompt="another one").save(path)
    with pytest.raises(RunError, match="recorded attention belongs to another prompt"):
        run.attention()
    path.unlink()
    with pytest.raises(RunError, match=r"attention\.npz cannot be read"):
        read_run(run.path)
    path.symlink_to(run.path / "routing.npz")
    with pytest.raises(RunError, match=r"attention\.npz cannot be read"):
        read_run(run.path)
    with pytest.raises(RunError, match="belongs to another prompt"):
        write_run(tmp_path, make_record(), make_frames(), trace=make_trace(), attention=made.attention)


def test_a_recording_that_was_swapped_or_has_no_digest_is_told(made, tmp_path: Path):
    run = made.save(tmp_path)
    turned = replace(made.attention, word_maps=made.attention.word_maps[::-1].copy())
    turned.save(run.path / "attention.npz")
    with pytest.raises(RunError, match=r"attention\.npz (has \d+ bytes|does not match its SHA-256)"):
        read_run(run.path)
    with pytest.raises(RunError, match=r"attention\.npz changed since the run was read"):
        run.read_bytes("attention.npz")
    plain = write_run(tmp_path, make_record(), make_frames(), trace=make_trace())
    assert plain.attention() is None
    made.attention.save(plain.path / "attention.npz")
    with pytest.raises(RunError, match=r"no digest of attention\.npz: delete it, or make the clip anew"):
        read_run(plain.path).attention()


def test_a_recording_on_another_grid_than_the_routing_is_refused(tmp_path: Path):
    """Each is whole and of the same prompt, seed and frames: only together they contradict each other."""
    other = make_attention(grid=TokenGrid(GRID.frames, GRID.width, GRID.height))
    said = "the recorded attention has a grid of 3×5×4 tokens, the routing one of 3×4×5"
    with pytest.raises(RunError, match=said):
        write_run(tmp_path, make_record(), make_frames(), trace=make_trace(), attention=other)
    run = write_run(tmp_path, make_record(), make_frames(), trace=make_trace(), attention=make_attention())
    assert run.attention().grid == run.trace().grid
    other.save(run.path / "attention.npz")
    with pytest.raises(RunError, match=said):
        run.attention()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"word_peaks": np.full(7, 2, np.float32)}, "word_peaks must lie in"),
        ({"steps": np.array([3, 2, 1], np.int32)}, "are impossible"),
        ({"steps": np.array([1, 2, 4], np.int32)}, "are impossible"),
        ({"words": ("a", "b")}, "along W, not 2"),
        ({"cell_side": 0}, "cells of 0 tokens"),
        ({"cell_maps": np.zeros((2, 2), np.uint8)}, "along C, not"),
    ],
)
def test_an_impossible_recording_cannot_be_built(made, change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(made.attention, **change)


def test_memory_is_bounded_however_long_large_or_wordy_a_clip_is():
    assert kept_steps(50, 320, 10) == (1, 8, 15, 22, 29, 36, 43, 50)
    for total, grid, words in (
        (50, TokenGrid(21, 30, 52), 40),
        (1, TokenGrid(5, 8, 8), 3),
        (1000, TokenGrid(257, 60, 90), 4),
    ):
        steps = kept_steps(total, grid.num_tokens, words)
        assert steps[-1] == total
        assert len(steps) <= min(total, MAX_STEPS)
        assert len(steps) * grid.num_tokens * words <= MAX_WORD_BYTES
        cells = Cells.of(grid)
        assert cells.count <= MAX_CELLS
        assert sorted(set(cells.of_token)) == list(range(cells.count))
        assert np.array_equal(cells.of_token[cells.centres], np.arange(cells.count))
    assert Cells.of(TokenGrid(5, 8, 8)).side == 1
    with pytest.raises(ValueError, match="too much to record: shorten the prompt or the clip"):
        kept_steps(10, MAX_WORD_BYTES, 2)


def test_what_the_browser_gets_is_what_was_recorded(made):
    import base64

    sent = AttentionBytes.of(made.attention)
    maps = np.frombuffer(base64.b64decode(sent.maps), np.uint8).reshape(3, len(WORDS), -1)
    assert np.array_equal(maps, made.attention.word_maps.transpose(0, 2, 1))
    assert sent.words == list(WORDS)
    assert sent.steps == [1, 2, 3]


def test_a_word_that_stands_twice_is_there_twice_and_a_long_one_is_cut(pipeline):
    words = words_in(pipeline.tokenizer, "a red ball,  the red floor")
    assert words.texts == ("a", "red", "ball", "the", "red", "floor")
    assert len(set(words.places)) == 6
    assert words_in(pipeline.tokenizer, "a red " + "b" * 500).texts == ("a", "red", "b" * MAX_WORD_CHARS)


def test_of_what_is_written_without_spaces_each_piece_that_the_model_reads_is_a_word():
    pieces = ["<unk>", "▁", "▁a", "▁red", "球", "红色", "的", "在", "弹", "跳", "ball", "ボール", "が", "บอล", "e", "n"]
    scores = [(piece, -float(len(pieces) - len(piece))) for piece in pieces]
    backend = Tokenizer(models.Unigram(scores, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", padding_side="right")

    def read(prompt: str) -> dict[str, list[str]]:
        words, ids = words_in(tokenizer, prompt), tokenizer(prompt).input_ids
        named = tokenizer.convert_ids_to_tokens(ids)
        return {text: [named[i] for i in places] for text, places in zip(words.texts, words.places, strict=True)}

    assert list(read("红色的球在弹跳。a red")) == ["红色", "的", "球", "在", "弹", "跳", "a", "red"]
    assert read("红色的ball") == {"红色": ["▁", "红色"], "的": ["的"], "ball": ["ball"]}
    assert list(read("ボールが")) == ["ボール", "が"]
    assert list(read("a red")) == ["a", "red"]


def test_what_cannot_be_recorded_is_refused_before_anything_is_made(pipeline):
    with (
        branch_switched(pipeline, False),
        pytest.raises(GenerationError, match="recorded beside the routing, and no branch is on"),
    ):
        check(pipeline, SETTINGS, attention=True)
    with pytest.raises(ValueError, match="no cross-attention to record: use a Wan model, or record no attention"):
        check_records(make_cogvideox())


def test_a_transformer_that_leaves_attention_out_is_refused(tiny_pipeline):
    transformer = tiny_pipeline.transformer
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(GenerationError, match=r"a cache leaves attention out: call the transformer's disable_cache"):
        check(tiny_pipeline, SETTINGS, attention=True)
    transformer.disable_cache()
    check(tiny_pipeline, SETTINGS, attention=True)
    transformer.compile_repeated_blocks(backend="eager")
    with pytest.raises(GenerationError, match="compiled blocks do not call hooks: open the model without compiling"):
        check(tiny_pipeline, SETTINGS, attention=True)


def test_a_recording_is_no_trace_of_routing(made, tmp_path: Path):
    made.trace.save(tmp_path / "routing.npz")
    with pytest.raises(ValueError, match="not a valid recording of attention: arrays are missing or unknown"):
        AttentionTrace.load(tmp_path / "routing.npz")
