"""What trainings are made of: checkpoints that survive a kill, the cache of the worlds, optimisers and averages."""

import copy
import itertools
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from accelerate import Accelerator
from conftest import make_text_encoder, make_transformer, make_vae
from diffusers import AutoencoderKLWan
from transformers import AutoTokenizer, UMT5EncoderModel

from prophy.backbones.autoencoder import normalise
from prophy.data import latents
from prophy.data.encode import empty_prompt, encode_text
from prophy.data.latents import LatentCache, grid_of, open_cache
from prophy.grid import TokenGrid
from prophy.phenomena import BY_ID, IDS
from prophy.tiny.parts import TinyParts, load_parts
from prophy.tiny.text import (
    MAX_WORDS,
    SCENES,
    TextRecipe,
    answers,
    build_tokenizer,
    train_text,
    word_answers,
)
from prophy.training import checkpoints
from prophy.training.batches import Batches, Share
from prophy.training.checkpoints import load_checkpoint, save_checkpoint
from prophy.training.ema import Ema
from prophy.training.objectives import FlowMatching
from prophy.training.optim import MuonAdamW
from prophy.training.recipe import BranchShape
from prophy.training.recipes import recipe_named
from prophy.training.strategies import AccelerateStrategy
from prophy.training.trainable import build_trainable
from prophy.training.world_examples import WorldExamples
from prophy.worlds import COLOURS, Stage, WorldSet, sample_clip, sample_scenario
from prophy.worlds.language import GRAMMARS, Telling, Told
from prophy.worlds.sample import sample_telling
from prophy.worlds.scope import SCOPE
from prophy.worlds.stage import BACKGROUNDS

CLIPS = 8


# --- checkpoints ------------------------------------------------------------------------------------------------------


def make_state(number: int) -> dict:
    """Everything a checkpoint may hold; the numbers tell which one it is."""
    torch.manual_seed(number)
    return {
        "step": number,
        "model": {"weight": torch.randn(3, 4), "bias": torch.randn(5).bfloat16(), "empty": torch.zeros(0, 2)},
        "optimiser": [{"state": {0: {"step": torch.tensor(7.0), "average": torch.randn(3, 4).t()}}, "groups": [0, 1]}],
        "recipe": {"rate": 0.1 + number, "name": "tiny", "sites": [1, 4], "nothing": None, "flag": True},
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path):
    assert load_checkpoint(tmp_path / "run") is None
    save_checkpoint(tmp_path / "run", make_state(1))
    assert same(load_checkpoint(tmp_path / "run"), make_state(1))
    save_checkpoint(tmp_path / "run", make_state(2))
    assert same(load_checkpoint(tmp_path / "run"), make_state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path: Path):
    save_checkpoint(tmp_path / "run", make_state(1))
    weights = tmp_path / "run" / "tensors.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="is damaged .* delete it to start again") as caught:
        load_checkpoint(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_a_large_checkpoint_lies_in_several_files_and_comes_back_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "FILE_BYTES", 50)
    save_checkpoint(tmp_path / "run", make_state(1))
    files = sorted((tmp_path / "run").glob("*.safetensors"))
    assert [path.name for path in files] == [f"tensors-00{i}-of-003.safetensors" for i in (1, 2, 3)]
    assert same(load_checkpoint(tmp_path / "run"), make_state(1))
    assert checkpoints.saved_in(tmp_path / "run").step == 1
    monkeypatch.undo()
    assert same(load_checkpoint(tmp_path / "run"), make_state(1)), "it opens only where it was written"
    files[1].unlink()
    with pytest.raises(ValueError, match="it lacks tensors-002-of-003.safetensors; copy the folder whole"):
        load_checkpoint(tmp_path / "run")


def test_a_checkpoint_of_an_older_release_opens(tmp_path: Path):
    save_checkpoint(tmp_path / "run", make_state(1))
    path = tmp_path / "run" / "state.json"
    plan = json.loads(path.read_text())
    assert plan.pop("files") == ["tensors.safetensors"]  # which older releases did not list
    path.write_text(json.dumps(plan))
    assert same(load_checkpoint(tmp_path / "run"), make_state(1))


class Killed(BaseException):
    """The process died here."""


@contextmanager
def kill(operation: int) -> Iterator[None]:
    """Die at one of the file operations of a save, having done half of it where half is possible."""
    count = itertools.count()
    real = {"rmtree": shutil.rmtree, "replace": checkpoints.os.replace, "write": Path.write_text}

    def dying(name: str, half):
        def wrapped(*arguments, **named):
            if next(count) == operation:
                half(*arguments)
                raise Killed(name)
            return real[name](*arguments, **named)

        return wrapped

    def half_removed(folder: Path) -> None:
        for path in sorted(folder.glob("*"))[-1:]:
            path.unlink()

    def half_written(target: Path, text: str) -> None:
        target.write_bytes(text.encode()[: len(text) // 2])

    def half_saved(tensors: dict, target: Path) -> None:
        target.write_bytes(b"\x10\0\0\0")

    def nothing(*_) -> None: ...

    real["save_file"], real["fsync"], real["mkdir"] = safetensors.torch.save_file, checkpoints.os.fsync, Path.mkdir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", dying("rmtree", half_removed))
        patch.setattr(checkpoints.os, "replace", dying("replace", nothing))
        patch.setattr(checkpoints.os, "fsync", dying("fsync", nothing))
        patch.setattr(safetensors.torch, "save_file", dying("save_file", half_saved))
        patch.setattr(Path, "write_text", dying("write", half_written))
        patch.setattr(Path, "mkdir", dying("mkdir", nothing))
        yield


def save_and_die(folder: Path, state: dict, operation: int) -> bool:
    """Whether the process died before the save was done."""
    try:
        with kill(operation):
            save_checkpoint(folder, state)
    except Killed:
        return True
    return False


def test_a_kill_at_any_file_operation_leaves_the_old_checkpoint_or_the_new(tmp_path: Path):
    outcomes = []
    for operation in itertools.count():
        folder = tmp_path / str(operation) / "run"
        save_checkpoint(folder, make_state(1))
        died = save_and_die(folder, make_state(2), operation)
        found = load_checkpoint(folder)
        outcomes.append(found["step"])
        assert same(found, make_state(found["step"]))
        save_checkpoint(folder, make_state(3))
        assert same(load_checkpoint(folder), make_state(3)), "the next save does not recover"
        if not died:
            break
    assert len(outcomes) > 8, "the test patches nothing"
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {1, 2}


def test_a_second_kill_does_not_lose_what_the_first_left(tmp_path: Path):
    for first, second in itertools.product((4, 8, 9, 10), range(12)):  # writing; and around the two renames
        folder = tmp_path / f"{first}-{second}" / "run"
        save_checkpoint(folder, make_state(1))
        save_and_die(folder, make_state(2), first)
        kept = load_checkpoint(folder)["step"]
        save_and_die(folder, make_state(3), second)
        found = load_checkpoint(folder)
        assert found is not None, f"killed at {first}, then at {second}: the checkpoint is gone"
        assert found["step"] in (kept, 3), f"killed at {first}, then at {second}"
        assert same(found, make_state(found["step"]))


# --- the latent cache -------------------------------------------------------------------------------------------------


def random_vae(seed: int) -> AutoencoderKLWan:
    torch.manual_seed(seed)
    vae = make_vae(4, [0.1, 0.2, -0.3, 0.4], [0.5, 1.0, 1.5, 2.0])
    return vae.requires_grad_(False)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training folder: small random parts, and 8 clips encoded."""
    folder = tmp_path_factory.mktemp("work")
    vae = random_vae(1)
    tokenizer = build_tokenizer([sample_scenario(seed)[1] for seed in range(300)])
    encoder = make_text_encoder(len(tokenizer))
    vae.save_pretrained(folder / "model" / "vae")
    tokenizer.save_pretrained(folder / "model" / "tokenizer")
    encoder.save_pretrained(folder / "model" / "text_encoder")
    parts = load_parts(folder / "model")
    open_cache(folder / "latents", parts.vae, parts.tokenizer, CLIPS)
    return folder


@pytest.fixture(scope="module")
def parts(work: Path) -> TinyParts:
    return load_parts(work / "model")


@pytest.fixture(scope="module")
def cache(work: Path, parts) -> LatentCache:
    return open_cache(work / "latents", parts.vae, parts.tokenizer, CLIPS)


def test_the_cache_holds_normalised_latents_of_the_same_clips(cache, parts):
    clip = sample_clip(3, "train", SCOPE)
    video = torch.from_numpy(clip.frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = parts.vae.encode(video).latent_dist.mode()[0]
    mean, std = (torch.tensor(parts.vae.config[name]).view(-1, 1, 1, 1) for name in ("latents_mean", "latents_std"))
    stored = torch.from_numpy(cache.latents[3].astype(np.float32)) * std + mean
    assert stored.shape == (4, 5, 8, 8)
    print(f"largest difference of a cached latent: {(stored - expected).abs().max():.3g}")
    assert (stored - expected).abs().max() < 0.05 * expected.abs().max()
    torch.testing.assert_close(normalise(expected[None], parts.vae)[0] * std + mean, expected)


def test_cached_labels_and_targets_are_those_of_the_clip(cache):
    grid = TokenGrid(5, 8, 8)
    rows = np.arange(CLIPS)
    labels, targets = cache.labels(rows), cache.targets(rows)
    assert any(labels.sum(1) == 2), "no clip with two phenomena: the test shows little"
    for row in rows:
        clip = sample_clip(int(row), "train", SCOPE)
        np.testing.assert_array_equal(labels[row], clip.scenario.labels)
        for name, index in ((phenomenon.id, phenomenon.index) for phenomenon in BY_ID.values()):
            mask = clip.masks.get(name)
            expected = np.zeros(grid.num_tokens) if mask is None else grid.pool_masks(mask[None])[0]
            np.testing.assert_allclose(targets[row, :, index], expected, atol=0.5 / 255 + 1e-6)


def test_cached_captions_describe_the_clip_in_several_wordings(cache, parts):
    for row in range(CLIPS):
        _, text = sample_scenario(row, "train", SCOPE)
        expected = parts.tokenizer(text, padding="max_length").input_ids
        assert cache.ids[row, 0].tolist() == expected
    assert any(len({tuple(ids) for ids in cache.ids[row].tolist()}) > 1 for row in range(CLIPS))


def test_a_cache_made_with_other_weights_words_or_phenomena_is_refused(work: Path, parts):
    other_words = build_tokenizer(["a red ball"])
    for other, arguments in (
        ("weights", (random_vae(2), parts.tokenizer, CLIPS)),
        ("weights", (parts.vae, other_words, CLIPS)),
        ("phenomena", (parts.vae, parts.tokenizer, CLIPS, WorldSet(SCOPE[:3]))),
        ("clips", (parts.vae, parts.tokenizer, CLIPS, WorldSet(split="test"))),
        ("sizes", (parts.vae, parts.tokenizer, CLIPS, WorldSet(stage=Stage(96, 64)))),
        ("clocks", (parts.vae, parts.tokenizer, CLIPS, WorldSet(lawful=False))),
        ("captions", (parts.vae, parts.tokenizer, CLIPS, WorldSet(grammar="plain"))),
    ):
        with pytest.raises(ValueError, match=f"cached with other {other}: delete it or choose another"):
            open_cache(work / "latents", *arguments)


def test_a_cache_fits_an_autoencoder_whose_decoder_learnt_on(tmp_path: Path, parts):
    made = np.array(open_cache(tmp_path, parts.vae, parts.tokenizer, 2, WorldSet(("melting",))).latents)
    polished = copy.deepcopy(parts.vae)
    with torch.no_grad():
        polished.decoder.conv_out.weight.mul_(2)
    again = open_cache(tmp_path, polished, parts.tokenizer, 2, WorldSet(("melting",)))
    np.testing.assert_array_equal(again.latents, made)


def test_a_cache_of_the_first_generation_is_one_of_the_default_stage(tmp_path: Path, parts):
    arguments = tmp_path, parts.vae, parts.tokenizer, 2
    made = np.array(open_cache(*arguments, WorldSet(("melting",))).latents)
    marker = tmp_path / "cache.json"
    about = json.loads(marker.read_text())
    marker.write_text(json.dumps({key: about[key] for key in ("made_by", "phenomena", "split", "count")}))
    np.testing.assert_array_equal(open_cache(*arguments, WorldSet(("melting",))).latents, made)
    with pytest.raises(ValueError, match="cached with other sizes"):
        open_cache(*arguments, WorldSet(("melting",), stage=Stage(96, 64)))


@pytest.mark.parametrize("lawful", [True, False], ids=["lawful", "unlawful"])
def test_a_cache_holds_clips_of_any_size_and_unlawful_ones(tmp_path: Path, parts, lawful: bool):
    stage = Stage(96, 64, 33, 16)
    cache = open_cache(tmp_path, parts.vae, parts.tokenizer, 2, WorldSet(("melting",), "train", stage, lawful))
    grid = grid_of(stage, parts.vae)
    assert cache.latents.shape == (2, 4, *grid.shape)
    assert grid.shape == (9, 8, 12)
    clip = sample_clip(1, "train", ("melting",), stage, lawful)
    expected = grid.pool_masks(clip.masks["melting"][None])[0]
    found = cache.targets(np.array([1]))[0, :, IDS.index("melting")]
    np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)


def test_a_cache_is_read_by_tokens_of_several_cells(tmp_path: Path, parts):
    worlds = WorldSet(("melting",), stage=Stage(96, 64, 17, 8))
    open_cache(tmp_path, parts.vae, parts.tokenizer, 1, worlds)
    cache = open_cache(tmp_path, parts.vae, parts.tokenizer, 1, worlds, patch=2)
    coarse = TokenGrid.from_video(17, 64, 96, 16)
    assert cache.grid == coarse
    expected = coarse.pool_masks(worlds.clip(0).masks["melting"][None])[0]
    found = cache.targets(np.array([0]))[0, :, IDS.index("melting")]
    np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)
    assert 0 < found.max() <= 1
    with pytest.raises(ValueError, match="12x8 latent cells: tokens of 3x3 of them need another size"):
        open_cache(tmp_path, parts.vae, parts.tokenizer, 1, worlds, patch=3)


def test_a_cache_grows_without_changing_and_survives_a_kill_while_growing(
    tmp_path: Path, parts, monkeypatch: pytest.MonkeyPatch
):
    few = WorldSet(("collision", "melting"))
    small = open_cache(tmp_path, parts.vae, parts.tokenizer, 2, few)
    kept = {name: np.array(getattr(small, name)) for name in ("latents", "ids", "masks", "phenomena")}
    with monkeypatch.context() as patch:
        patch.setattr(latents, "normalise", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            open_cache(tmp_path, parts.vae, parts.tokenizer, 5, few)
    for count in (2, 5, 3):
        opened = open_cache(tmp_path, parts.vae, parts.tokenizer, count, few)
        assert len(opened) == count
        for name, array in kept.items():
            np.testing.assert_array_equal(getattr(opened, name)[:2], array)
    assert np.abs(open_cache(tmp_path, parts.vae, parts.tokenizer, 5, few).latents[2:]).max((1, 2, 3, 4)).all()


# --- the worlds as a training set -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples(cache, parts) -> WorldExamples:
    return WorldExamples(cache, parts.encoder, "some")


def test_a_batch_of_worlds_is_read_as_its_clips_are_one_by_one(examples):
    indices, wordings = [4, 1, 6], [0, 3, 9]
    together = examples.read(indices, wordings)
    for example, index, wording in zip(together, indices, wordings, strict=True):
        alone = examples.example(index, wording)
        assert example.key == alone.key == f"world {index}"
        torch.testing.assert_close(example.text_LD, alone.text_LD, atol=1e-6, rtol=1e-5)
        for name in ("latents_CTHW", "labels_P", "targets_NP"):
            assert torch.equal(getattr(example, name), getattr(alone, name)), name


def test_captions_are_encoded_as_the_pipeline_passes_them_on_padding_included(examples, cache, parts):
    ids = torch.from_numpy(cache.ids[2, 1].astype(np.int64))
    assert 0 < int(ids.ne(0).sum()) < MAX_WORDS
    expected = encode_text(parts.encoder, ids[None])[0]
    torch.testing.assert_close(examples.example(2, 1).text_LD, expected, atol=1e-6, rtol=1e-5)
    empty = empty_prompt(MAX_WORDS)
    assert empty.tolist() == parts.tokenizer("", padding="max_length").input_ids
    torch.testing.assert_close(examples.empty_text_LD, encode_text(parts.encoder, empty[None])[0])


def test_the_worlds_make_batches_that_weigh_where_physics_happens(examples, cache):
    recipe = replace(recipe_named("tiny"), batch=4, seed=3)
    batch = Batches(examples, recipe, FlowMatching(), Share())[5]
    rows = [int(key.split()[1]) for key in batch.keys]
    sigma = (batch.timestep_B / 1000).view(-1, 1, 1, 1, 1)
    clean = batch.noisy_BCTHW - sigma * batch.target_BCTHW
    torch.testing.assert_close(clean, torch.from_numpy(cache.latents[rows].astype(np.float32)), atol=1e-5, rtol=0)
    masks = torch.from_numpy(cache.masks[rows].max(1).astype(np.float32) / 255).view(4, 5, 8, 8)
    torch.testing.assert_close(batch.weight_BTHW, 1 + 2 * masks)
    assert (batch.weight_BTHW == 3).any()


# --- the optimiser and the average ------------------------------------------------------------------------------------


class Net(torch.nn.Module):
    """A matrix and a kernel for Muon, the rest for AdamW."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv = torch.nn.Conv2d(3, 5, 2).to(memory_format=torch.channels_last)
        self.linear = torch.nn.Linear(5, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).mean((2, 3)))


def make_optimiser(net: Net) -> MuonAdamW:
    return MuonAdamW([net.conv.weight, net.linear.weight], [net.conv.bias, net.linear.bias], 0.02, 1e-3, 0.01)


def take_steps(net: Net, optimiser: MuonAdamW, steps: range) -> None:
    for step in steps:
        optimiser.set_rate(1 - 0.2 * step)
        x = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(step))
        net(x).square().sum().backward()
        optimiser.step()


def test_an_optimiser_resumed_from_a_checkpoint_steps_exactly_as_if_never_stopped(tmp_path: Path):
    straight = Net()
    take_steps(straight, make_optimiser(straight), range(4))
    net = Net()
    optimiser = make_optimiser(net)
    take_steps(net, optimiser, range(2))
    save_checkpoint(tmp_path / "run", {"model": net.state_dict(), "optimiser": optimiser.state_dict()})
    resumed = Net()
    with torch.no_grad():
        for p in resumed.parameters():
            p.zero_()
    optimiser, state = make_optimiser(resumed), load_checkpoint(tmp_path / "run")
    resumed.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    take_steps(resumed, optimiser, range(2, 4))
    start = Net().state_dict()
    for name, value in straight.state_dict().items():
        assert not torch.equal(value, start[name]), f"{name} was never trained"
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_step_clears_every_gradient(monkeypatch: pytest.MonkeyPatch):
    net = Net()
    take_steps(net, make_optimiser(net), range(1))
    assert all(p.grad is None for p in net.parameters())


def test_a_kernel_in_the_wrong_layout_is_refused():
    conv = torch.nn.Conv2d(3, 5, 2)
    with pytest.raises(ValueError, match=r"not laid out channels-last: call channels_last\(model\) first"):
        MuonAdamW([conv.weight], [conv.bias], 0.02, 1e-3)


def test_every_trained_parameter_has_exactly_one_optimiser(tmp_path: Path):
    recipe = replace(recipe_named("tiny_together"), branch=BranchShape((0, 2), semantic_experts=6))
    module = build_trainable(make_transformer(), recipe)
    strategy = AccelerateStrategy(module, recipe, Accelerator(cpu=True), sharded=False)
    held = [id(p) for optimiser in strategy.optimisers.values() for p in optimiser.parameters]
    assert sorted(held) == sorted(id(p) for p in module.parameters())
    matrices = strategy.optimisers["transformer"]._matrices
    assert len(matrices) == 3 * 10  # four projections in each attention, two in the feed-forward
    assert all(p.ndim == 2 for p in matrices)


def test_the_average_follows_the_parameters_and_not_the_other_way_round():
    net = Net()
    ema = Ema(net, decay=0.75)
    expected = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimiser = make_optimiser(net)
    for step in range(40, 43):
        take_steps(net, optimiser, range(1))
        ema.update(step)
        for name, p in net.named_parameters():
            expected[name] = 0.75 * expected[name] + 0.25 * p.detach()
    for name, value in ema.average.items():
        torch.testing.assert_close(value, expected[name])
        assert not torch.equal(value, dict(net.named_parameters())[name])


# --- words ------------------------------------------------------------------------------------------------------------


def test_the_tokenizer_reads_words_however_they_are_written_and_marks_unknown_ones():
    tokenizer = build_tokenizer(["a red ball bounces", "a blue candle"])
    assert tokenizer.convert_ids_to_tokens(tokenizer("A Red, BALL!  bounces.").input_ids) == [
        "a",
        "red",
        "ball",
        "bounces",
        "</s>",
    ]
    assert tokenizer("ａ red ball").input_ids == tokenizer("a red ball").input_ids, "full-width letters are letters"
    assert tokenizer("a flibbert ball").input_ids[1] == tokenizer.unk_token_id == 2
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    padded = tokenizer(["a", "a red ball"], padding="max_length", truncation=True).input_ids
    assert {len(row) for row in padded} == {MAX_WORDS}
    long = tokenizer("ball " * 100, truncation=True).input_ids
    assert len(long) == MAX_WORDS
    assert long[-1] == tokenizer.eos_token_id


def test_training_encodes_text_exactly_as_the_pipeline_does(tiny_pipeline):
    prompt = "a red ball bounces on the flibbert"
    ids = tiny_pipeline.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        ours = encode_text(tiny_pipeline.text_encoder, ids)
        theirs, _ = tiny_pipeline.encode_prompt(
            prompt, do_classifier_free_guidance=False, max_sequence_length=MAX_WORDS
        )
    length = int(ids.ne(0).sum())
    assert not ours[0, length:].any()
    assert ours[0, :length].abs().max() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("grammar", list(GRAMMARS.values()), ids=list(GRAMMARS))
def test_the_answers_to_the_place_questions_are_those_of_the_scenario(grammar):
    for seed in range(40):
        scenario, telling = sample_telling(seed, grammar=grammar, twins=0.2)
        *table, setting = answers(telling)
        rows = np.reshape(table, (3, 4))
        assert (rows[:, 0] > 0).sum() == len(scenario.events)
        assert setting in (0, 1 + list(BACKGROUNDS).index(scenario.setting))
        for event, told in zip(scenario.events, telling.events, strict=True):
            scene, first, second, number = rows[("centre", "left", "right").index(event.place)]
            assert SCENES[scene - 1] == (event.phenomenon, event.variant)
            said = [list(COLOURS)[index - 1] for index in (first, second) if index]
            assert said == [colour for colour in told.colours if colour]
            assert number == told.number


def test_every_word_must_say_what_its_event_is():
    told = Told("elastic_motion", "ball", "left", ("red",)), Told("elastic_motion", "ball", "right", ("blue",))
    about = ((), ("left",), ("left", "right"))
    rows = word_answers(Telling("a ball twice", told, None, about))
    place, scene, colour = rows[:, 0].tolist(), rows[:, 1].tolist(), rows[:, 2].tolist()
    ball = 1 + SCENES.index(("elastic_motion", "ball"))
    assert (place, scene) == ([0, 2, 4], [0, ball, ball])
    assert colour == [0, 1 + list(COLOURS).index("red"), -100], "nothing is asked where two events differ"


def test_a_text_encoder_learns_plain_words_and_says_how_well_it_reads_strangers(tmp_path: Path):
    recipe = TextRecipe("plain", twins=0.1, steps=4, batch=8, width=32, layers=1, vocabulary_captions=300)
    exact = train_text(tmp_path, recipe, torch.device("cpu"))
    result = json.loads((tmp_path / "text-result.json").read_text())
    assert set(exact) == {"test", "wordings", "combinations"}
    assert result["recipe"]["grammar"] == "plain"
    assert 0 < result["visitors"]["widening"]["known"] <= 1
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model" / "tokenizer")
    assert tokenizer.unk_token_id not in tokenizer("a red ball").input_ids
    encoder = UMT5EncoderModel.from_pretrained(tmp_path / "model" / "text_encoder")
    assert encoder.config.vocab_size == len(tokenizer)
