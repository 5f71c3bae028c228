"""The loop of the small trainings: exact resuming, one log, and the stages of the embedded model that use it."""

import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_text_encoder, make_vae
from diffusers import AutoencoderKLWan, WanPipeline
from safetensors.torch import save_file
from torch import nn

from prophy.cli import main
from prophy.data import clip_pool
from prophy.data.clip_pool import ClipPool
from prophy.evaluation.judges.recogniser import Recogniser, RecogniserRecipe, load_recogniser
from prophy.evaluation.judges.recogniser import fit as fit_recogniser
from prophy.tiny import text, vae
from prophy.tiny.linear_code import pooled_code
from prophy.tiny.parts import finish_parts
from prophy.tiny.text import TextRecipe, build_tokenizer, train_text
from prophy.tiny.vae import Phase, VaeRecipe, train_vae
from prophy.training import fit as fit_module
from prophy.training.checkpoints import load_checkpoint, restore_random_state, save_checkpoint
from prophy.training.devices import chosen_device
from prophy.training.ema import Ema
from prophy.training.fit import fit
from prophy.training.log import GrowingLog, read_lines
from prophy.training.optim import MuonAdamW, OneCycleAdamW
from prophy.training.progress import TrainingStopped
from prophy.training.run_folder import TrainingRun
from prophy.worlds import Stage, sample_clip, sample_scenario

CPU = torch.device("cpu")


@dataclass(frozen=True)
class NetRecipe:
    """Of a net that takes seconds."""

    steps: int = 8
    batch: int = 4
    rate: float = 1e-2


def train_net(folder: Path | None, recipe: NetRecipe = NetRecipe(), cycle: bool = False, **named) -> nn.Module:
    """A net with dropout, whose batches are a function of the step."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(5, 7), nn.Dropout(0.3), nn.Tanh(), nn.Linear(7, 2)).train()
    if cycle:
        optimiser = OneCycleAdamW(list(net.parameters()), recipe.rate, steps=8, warm_up=0.25, weight_decay=0.01)
    else:
        matrices, others = [net[0].weight, net[3].weight], [net[0].bias, net[3].bias]
        optimiser = MuonAdamW(matrices, others, recipe.rate, recipe.rate, 0.01)
        named = {"pace": lambda step: optimiser.set_rate(1 - step / recipe.steps), "ema": Ema(net, 0.5), **named}

    def loss_at(step: int) -> torch.Tensor:
        x = torch.randn(recipe.batch, 5, generator=torch.Generator().manual_seed(step))
        return net(x).square().mean()

    fit(net, loss_at, optimiser, steps=recipe.steps, name="net", recipe=recipe, folder=folder, log_every=1, **named)
    return net


def kill_after_the_first_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def save_and_die(folder: Path, state: dict) -> None:
        save_checkpoint(folder, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_module, "save_checkpoint", save_and_die)


@pytest.mark.parametrize("cycle", [False, True])
def test_a_killed_training_resumes_bit_identically_and_its_log_has_every_step_once(tmp_path: Path, cycle: bool):
    measured = {"measure": lambda step: {"steps made": float(step)}, "checkpoint_every": 3, "cycle": cycle}
    whole = train_net(tmp_path / "whole", **measured)
    with pytest.MonkeyPatch.context() as patch:
        kill_after_the_first_checkpoint(patch)
        with pytest.raises(KeyboardInterrupt):
            train_net(tmp_path / "cut", **measured)
    assert load_checkpoint(tmp_path / "cut" / "checkpoint")["step"] == 3
    torch.rand(17)  # a resumed process has drawn other numbers
    cut = train_net(tmp_path / "cut", **measured)
    for name, weights in whole.state_dict().items():
        assert torch.equal(cut.state_dict()[name], weights), name
    for name in ("tensors.safetensors", "state.json"):
        assert (tmp_path / "whole" / "checkpoint" / name).read_bytes() == (
            tmp_path / "cut" / "checkpoint" / name
        ).read_bytes()
    for folder in ("whole", "cut"):
        lines = read_lines(tmp_path / folder)
        assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))
        assert [line["scores"] for line in lines if line["kind"] == "validation"] == [
            {"steps made": float(step)} for step in (3, 6, 8)
        ]


def test_scores_are_of_the_averaged_weights_and_training_goes_on_with_the_live_ones(tmp_path: Path):
    seen = []
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    ema = Ema(net, 0.9)

    def measure(step: int) -> dict[str, float]:
        seen.append(net.weight.detach().clone())
        return {"norm": float(net.weight.norm())}

    optimiser = OneCycleAdamW(list(net.parameters()), 0.1, steps=4, warm_up=0.5, weight_decay=0.0)
    fit(
        net,
        lambda step: net(torch.ones(2, 3)).square().mean(),
        optimiser,
        steps=4,
        name="net",
        recipe=NetRecipe(),
        folder=tmp_path,
        ema=ema,
        measure=measure,
        checkpoint_every=2,
    )
    assert torch.equal(seen[-1], ema.average["weight"])
    assert not torch.equal(net.weight, ema.average["weight"])


def test_its_folder_reads_as_a_run_of_the_trainer(tmp_path: Path):
    train_net(tmp_path, measure=lambda step: {"psnr": 20.0 + step})
    look = TrainingRun(tmp_path).look()
    assert look.faults == ()
    assert (look.about.recipe_name, look.about.steps, look.about.batch) == ("net", 8, 4)
    assert look.saved.step == 8
    assert look.lines[-1] == {"kind": "validation", "step": 8, "scores": {"psnr": 28.0}}
    assert GrowingLog(tmp_path).read()


def test_a_folder_without_a_name_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    train_net(None)
    assert not any(tmp_path.iterdir())


def test_out_of_time_it_stops_with_a_checkpoint_and_goes_on(tmp_path: Path):
    train_net(tmp_path / "cut", minutes=0.0)
    assert load_checkpoint(tmp_path / "cut" / "checkpoint")["step"] == 1
    cut, whole = train_net(tmp_path / "cut"), train_net(tmp_path / "whole")
    assert torch.equal(cut[0].weight, whole[0].weight)


def test_another_recipe_or_an_older_releases_checkpoint_is_refused_in_one_line(tmp_path: Path):
    train_net(tmp_path / "run")
    with pytest.raises(ValueError, match="another recipe .batch was 4, now 6.: choose another folder"):
        train_net(tmp_path / "run", NetRecipe(batch=6))
    save_checkpoint(tmp_path / "old", {"step": 3})  # where the stages of older releases kept it
    with pytest.raises(ValueError, match="checkpoint of an older release.*or choose another folder") as caught:
        train_net(tmp_path / "old")
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_not_a_number_stops_before_the_step(tmp_path: Path):
    net = nn.Linear(2, 1)
    optimiser = OneCycleAdamW(list(net.parameters()), 0.1, steps=9, warm_up=0.5, weight_decay=0.0)
    before = net.weight.detach().clone()
    with pytest.raises(TrainingStopped, match="the loss is nan .* at step 0 of net"):
        fit(net, lambda step: net(torch.full((1, 2), torch.nan)).mean(), optimiser, steps=9, name="net")
    assert torch.equal(net.weight, before)


def test_a_device_that_is_not_here_is_refused_in_one_line():
    assert chosen_device("cpu") == CPU
    with pytest.raises(ValueError, match="--device abacus cannot be used here: give cpu") as caught:
        chosen_device("abacus")
    assert "\n" not in str(caught.value)


# --- the embedded model's stages --------------------------------------------------------------------------------------

TEXT = TextRecipe(steps=4, batch=3, width=24, layers=1, heads=2, vocabulary_captions=40)
SMALL = Stage(64, 64, 17, 8)
VAE = VaeRecipe(
    pool=3,
    phases=(
        Phase(2, frames=5, crop=32, batch=2, first_share=1.0, last_share=0.5, learns="apart"),
        Phase(2, frames=17, crop=32, batch=1, first_share=0.5, last_share=0.1),
        Phase(2, frames=17, crop=32, batch=1, first_share=0.5, last_share=0.1, learns="decoder"),
    ),
)


def look_at_few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoencoder's stage measures itself on two small windows, and its latents on eight clips."""
    clips, scale = vae.validation_clips, vae.latent_scale
    monkeypatch.setattr(vae, "validation_clips", lambda count: clips(2)[:, :, :5, :32, :32])
    monkeypatch.setattr(vae, "latent_scale", lambda model, stage, precision: scale(model, SMALL, 8, precision))


def test_the_text_stage_resumes_bit_identically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    examples = text._examples
    monkeypatch.setattr(text, "_POOL", 2)
    monkeypatch.setattr(text, "_examples", lambda split, seeds, *rest: examples(split, seeds[:8], *rest))
    exact = train_text(tmp_path / "whole", TEXT, CPU, checkpoint_every=2)
    assert exact.keys() == {"test", "wordings", "combinations"}
    with pytest.MonkeyPatch.context() as patch:
        kill_after_the_first_checkpoint(patch)
        with pytest.raises(KeyboardInterrupt):
            train_text(tmp_path / "cut", TEXT, CPU, checkpoint_every=2)
    assert train_text(tmp_path / "cut", TEXT, CPU, checkpoint_every=2) == exact
    weights = "model/text_encoder/model.safetensors"
    assert (tmp_path / "whole" / weights).read_bytes() == (tmp_path / "cut" / weights).read_bytes()
    assert train_text(tmp_path / "none", TEXT, CPU, minutes=0.0) is None
    assert not (tmp_path / "none" / "model").exists()


def test_the_autoencoders_stage_resumes_bit_identically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    look_at_few_clips(monkeypatch)
    whole = train_vae(tmp_path / "whole", VAE, CPU, checkpoint_every=2)
    for _ in range(2):  # the second time as the decoder goes on alone
        with pytest.MonkeyPatch.context() as patch:
            kill_after_the_first_checkpoint(patch)
            with pytest.raises(KeyboardInterrupt):
                train_vae(tmp_path / "cut", VAE, CPU, checkpoint_every=2)
    cut = train_vae(tmp_path / "cut", VAE, CPU, checkpoint_every=2)
    for name, weights in whole.state_dict().items():
        assert torch.equal(cut.state_dict()[name], weights), name
    scores = [line["scores"] for line in read_lines(tmp_path / "cut" / "vae") if line["kind"] == "validation"]
    assert [score.keys() for score in scores] == [{"psnr"}] * 3
    settled = AutoencoderKLWan.from_pretrained(tmp_path / "cut" / "model" / "vae").state_dict()  # after four steps
    learnt = {name for name, weights in whole.state_dict().items() if not torch.equal(settled[name], weights)}
    assert "decoder.conv_out.weight" in learnt
    assert all(name.startswith(("decoder.", "post_quant_conv.")) for name in learnt)
    assert whole.config.latents_std != [1.0] * vae.LATENT_CHANNELS


def test_an_autoencoder_goes_on_from_weights_at_the_step_that_they_have_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    look_at_few_clips(monkeypatch)
    later = replace(VAE, behind=VAE.steps - 1)
    assert later.steps == 1
    assert later.at(0)[0] == VAE.at(VAE.steps - 1)[0], "the same phase"
    start = vae.build_vae()
    start.save_pretrained(tmp_path / "start")
    made = train_vae(tmp_path / "work", later, CPU, initial=tmp_path / "start")
    far = max(float((a - b).abs().max()) for a, b in zip(made.parameters(), start.parameters(), strict=True))
    assert 0 < far < 0.1, "one small step away from where it began"
    with pytest.raises(ValueError, match="--initial and --behind go together"):
        vae.main(["--work", str(tmp_path), "--behind", "3"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"behind": 7500}, "behind=7500 leaves nothing of 7500 steps to train"),
        ({"behind": 10**6}, "behind=1000000 leaves nothing"),
        ({"phases": ()}, "leaves nothing of 0 steps"),
        ({"precision": "load"}, "precision='load' must be"),
    ],
)
def test_a_recipe_of_the_autoencoder_that_trains_nothing_is_refused(changed: dict, said: str):
    with pytest.raises(ValueError, match=said):
        VaeRecipe(**changed)


@pytest.mark.parametrize("odd", [{"frames": 16}, {"frames": 21}, {"crop": 7}, {"crop": 136}])
def test_a_window_that_no_clip_holds_is_refused(odd: dict):
    with pytest.raises(ValueError, match="give"):
        replace(VaeRecipe().phases[0], **odd)


@pytest.mark.parametrize("kind", ["pipe", "folder", "noise", "another"])
def test_a_linear_code_that_cannot_be_read_is_refused_at_once(kind: str, tmp_path: Path):
    path = tmp_path / "linear-code.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "noise":
        path.write_bytes(b"noise")
    else:
        save_file({"mean": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="delete it, it is computed again"):
        pooled_code(path, None, 8, 32)  # type: ignore[arg-type]  no clip is looked at


@pytest.mark.parametrize("name", ["frames.npy", "pool.json"])
def test_a_pool_of_clips_with_a_pipe_or_noise_is_refused_or_rendered_anew(name: str, tmp_path: Path):
    stage = Stage(64, 64, 17, 8)
    whole = np.array(ClipPool(tmp_path, 2, stage, workers=1).frames)
    for damage in (os.mkfifo, lambda path: path.write_bytes(b"[" * 100_000)):
        (tmp_path / name).unlink()
        damage(tmp_path / name)
        if name == "frames.npy":
            with pytest.raises(ValueError, match="damaged pool of clips"):
                ClipPool(tmp_path, 2, stage, workers=1)
        else:
            assert np.array_equal(ClipPool(tmp_path, 2, stage, workers=1).frames, whole)


def test_a_judge_takes_memory_for_what_its_file_holds(tmp_path: Path):
    said = {"recipe": json.dumps(asdict(RecogniserRecipe()))}
    whole = Recogniser().state_dict()
    path = tmp_path / "recogniser.safetensors"
    for tensors in (
        {"x": torch.zeros(2)},
        {"body.1.bias": torch.zeros(2**16)},  # a network as wide takes 600 GB
        {**whole, "head.bias": torch.full_like(whole["head.bias"], math.nan)},
        {**whole, "head.bias": torch.zeros(3)},
    ):
        save_file(tensors, path, said)
        with pytest.raises(ValueError, match="is no judge of this release") as refused:
            load_recogniser(tmp_path)
        assert "\n" not in str(refused.value)
    save_file(whole, path, said)
    kept = load_recogniser(tmp_path)
    assert all(torch.equal(tensor, whole[name]) for name, tensor in kept.state_dict().items())


def test_two_that_render_into_one_pool_are_refused(tmp_path: Path, monkeypatch):
    render, seen = clip_pool.made_ahead, []

    def meanwhile(*arguments):
        if not seen:
            seen.append(1)
            with pytest.raises(ValueError, match="another process is rendering clips into"):
                ClipPool(tmp_path, 3, Stage(), workers=1)
        return render(*arguments)

    monkeypatch.setattr(clip_pool, "made_ahead", meanwhile)
    assert len(ClipPool(tmp_path, 2, Stage(), workers=1).frames) == 2
    assert seen
    assert {path.name for path in tmp_path.iterdir()} == {"pool.json", "frames.npy", "events.npy"}


def test_half_of_the_autoencoders_clips_obey_no_law_and_small_events_weigh_more(tmp_path: Path):
    pool = ClipPool(tmp_path, 4, Stage(64, 64, 17, 8))
    for seed in range(4):
        clip = sample_clip(seed, "train", lawful=seed % 2 == 0)
        assert np.array_equal(pool.frames[seed], clip.frames)
        assert np.array_equal(pool.events[seed] > 0, np.any(list(clip.masks.values()), axis=0))
    assert ClipPool(tmp_path, 4, Stage(64, 64, 17, 8)).frames.shape == (4, 17, 64, 64, 3)
    assert ClipPool(tmp_path, 2, Stage(96, 64, 17, 8)).frames.shape == (2, 17, 64, 96, 3), (
        "another pool is rendered anew"
    )
    events = np.zeros((1, 10, 10), np.uint8)
    events[0, 0, :2], events[0, 5:, :] = 1, 2
    weights = vae._weights(events, VAE)[0]
    assert float(weights.mean()) == pytest.approx(1)
    assert weights[0, 0] > weights[9, 0] > weights[3, 0]


def test_a_stopped_judge_resumes_to_the_same_judge_and_a_trained_one_can_be_trained_anew(tmp_path: Path):
    frames = np.random.default_rng(0).integers(0, 256, (6, 9, 64, 64, 3)).astype(np.uint8)
    labels = (torch.rand(6, 17, generator=torch.Generator().manual_seed(1)) > 0.8).float()
    recipe = RecogniserRecipe(clips=6, steps=3, batch=3, width=8)
    whole = fit_recogniser(frames, labels, recipe)
    with pytest.raises(TrainingStopped, match="stopped at step 1 of 3: start it again to resume"):
        fit_recogniser(frames, labels, recipe, CPU, tmp_path, minutes=0.0)
    assert load_checkpoint(tmp_path / "recogniser" / "checkpoint")["step"] == 1
    for again in (fit_recogniser(frames, labels, recipe, CPU, tmp_path) for _ in range(2)):
        for name, weights in whole.state_dict().items():
            assert torch.equal(again.state_dict()[name], weights), name
    assert len(read_lines(tmp_path / "recogniser")) > 0


# --- from nothing to a model ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder after the stages vae and text, with small random parts."""
    torch.manual_seed(7)
    work = tmp_path_factory.mktemp("stages")
    tokenizer = build_tokenizer([sample_scenario(seed)[1] for seed in range(40)])
    make_vae(4).save_pretrained(work / "model" / "vae")
    finish_parts(work / "model")
    assert not (work / "model" / "model_index.json").exists(), "the text encoder is not there yet"
    tokenizer.save_pretrained(work / "model" / "tokenizer")
    make_text_encoder(len(tokenizer)).save_pretrained(work / "model" / "text_encoder")
    finish_parts(work / "model")
    return work


def train_by_command(recipe: str, base: Path, work: Path, out: Path, *more: str) -> int:
    flags = ["--recipe", recipe, "--data", str(work / "latents"), "--model", str(base), "--out", str(out)]
    quick = ["--workers", "0", "--log-every", "1", "--set", "steps=2", "--set", "batch=2", "--set", "precision=float32"]
    return main(["train", *flags, *quick, *more])


def test_from_the_stages_to_a_shipped_model_by_commands_alone(stages: Path, tmp_path: Path):
    shape = ["--set", "scratch.width=32", "--set", "scratch.heads=2", "--set", "scratch.layers=3"]
    base, run = stages / "model", tmp_path / "transformer"
    prompt = ["--prompt", "a red ball", "--size", "64x64x17", "--set", "ema=0.5"]
    held_out = ["--held-out", str(stages / "latents-test"), "--held-out-worlds", "3"]
    assert train_by_command("tiny_transformer", base, stages, run, "--worlds", "4", *held_out, *shape, *prompt) == 0
    assert json.loads((stages / "latents-test" / "cache.json").read_text())["split"] == "test"
    assert read_lines(run)[-1]["diffusion"].keys() == {"0.2", "0.5", "0.8", "0.95"}
    assert (run / "samples" / "step-000002" / "00" / "video.mp4").is_file()
    assert main(["tiny", "ship", str(run), "--work", str(stages), "--out", str(tmp_path / "base")]) == 0
    pipeline = WanPipeline.from_pretrained(tmp_path / "base")
    averages = load_checkpoint(run / "checkpoint")["ema"]
    for name, weights in pipeline.transformer.state_dict().items():
        torch.testing.assert_close(weights, averages[f"transformer.{name}"], atol=1e-3, rtol=1e-3)  # but for rounding
    assert pipeline.transformer.proj_out.weight.abs().max() > 0, "it has not learnt"
    assert "_name_or_path" not in (tmp_path / "base" / "text_encoder" / "config.json").read_text()

    sites = ["--set", "branch.sites=0,2", "--set", "ema=0.5"]
    together = tmp_path / "together"
    assert train_by_command("tiny_together", tmp_path / "base", stages, together, *sites) == 0
    shipped = tmp_path / "shipped"
    assert main(["tiny", "ship", str(run), str(together), "--work", str(stages), "--out", str(shipped)]) == 0
    moved = WanPipeline.from_pretrained(shipped).transformer.state_dict()
    assert any(not torch.equal(moved[name], weights) for name, weights in pipeline.transformer.state_dict().items())
    assert main(["generate", "a red ball", "--model", str(shipped), "--steps", "1", "--out", str(tmp_path / "r")]) == 0
    assert next((tmp_path / "r").glob("*/routing.npz")).is_file()


def test_a_stage_that_became_a_recipe_is_named(capsys):
    assert main(["tiny", "transformer"]) == 2
    assert "prophy train --recipe tiny_transformer" in capsys.readouterr().err


def test_a_model_without_a_transformer_is_not_shipped(stages: Path, tmp_path: Path, capsys):
    assert main(["tiny", "ship", "--work", str(stages), "--out", str(tmp_path / "out")]) == 2
    assert "give a run of `prophy train --recipe tiny_transformer`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("random", [{}, {"cpu": 3}, {"cpu": torch.zeros(3)}, []])
def test_a_damaged_random_state_is_refused_in_one_line(random: object):
    with pytest.raises(ValueError, match="the checkpoint's random state is damaged .*: delete it to start again"):
        restore_random_state(random, CPU)
