"""Damage in what the package keeps for itself: one line that names the file, and what it is not is not read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_text_encoder, make_vae
from safetensors.torch import load_file, save_file

from prophy.arrays import read_npy
from prophy.assets import assets_dir
from prophy.backbones.opening import part_opened
from prophy.data.clip_pool import ClipPool
from prophy.data.latents import cache_note, open_cache, verify_worlds
from prophy.evaluation.measures.autoencoder import open_autoencoder
from prophy.evaluation.report.page import data_sets
from prophy.tiny.linear_code import pooled_code
from prophy.tiny.parts import load_parts
from prophy.tiny.text import build_tokenizer
from prophy.tiny.vlm_lessons import Lessons
from prophy.training.cached_examples import keep_empty_text, kept_empty_text
from prophy.training.optim import OneCycleAdamW
from prophy.training.world_examples import open_worlds
from prophy.ui.tabs.annotate import shipped
from prophy.worlds import Stage, WorldSet

FEW = WorldSet(("melting",))


def refused(read: Callable[[], object], *words: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        read()
    message = str(error.value)
    assert all(word in message for word in words), message


def changed(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# --- parts of a base --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A base of small parts, and a cache of two clips."""
    folder = tmp_path_factory.mktemp("made")
    tokenizer = build_tokenizer(FEW.captions(0, 9) + FEW.captions(1, 9))
    make_vae(8).save_pretrained(folder / "vae")
    tokenizer.save_pretrained(folder / "tokenizer")
    make_text_encoder(len(tokenizer)).save_pretrained(folder / "text_encoder")
    open_cache(folder / "cache", make_vae(8), tokenizer, 2, FEW)
    return folder


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "base")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def with_odd_header(path: Path) -> None:
    header = json.dumps({"__metadata__": 1, "x": {"data_offsets": [0, None]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def without_a_weight(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: tensors[name] for name in sorted(tensors)[1:]}, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("vae/config.json", lambda path: changed(path, dim_mult=1.5)),
        ("vae/config.json", lambda path: changed(path, latents_mean=["x"])),
        ("vae/config.json", lambda path: changed(path, base_dim=10**9)),
        ("tokenizer/tokenizer_config.json", lambda path: changed(path, pad_token=1.5)),
        ("tokenizer/tokenizer_config.json", lambda path: path.write_text("1")),
        ("tokenizer/tokenizer.json", lambda path: changed(path, normalizer={"a": 1})),
        ("text_encoder/config.json", lambda path: changed(path, vocab_size=False)),
        ("text_encoder/config.json", lambda path: changed(path, num_layers=10**9)),
        ("text_encoder/model.safetensors", cut),
        ("text_encoder/model.safetensors", with_odd_header),
        ("text_encoder/model.safetensors", without_a_weight),
        ("vae/diffusion_pytorch_model.safetensors", with_odd_header),
    ],
)
def test_a_part_that_is_damaged_is_one_line_wherever_it_is_opened(base: Path, part: str, damage: Callable):
    damage(base / part)
    folder = part.split("/")[0]
    refused(lambda: load_parts(base), folder)
    refused(lambda: open_worlds(base / "cache", base), folder)
    if folder == "vae":
        refused(lambda: open_autoencoder(base, torch.device("cpu")), folder)


# --- caches of the worlds ---------------------------------------------------------------------------------------------


def without_digests(cache: Path) -> None:
    about = json.loads((cache / "cache.json").read_text())
    (cache / "cache.json").write_text(json.dumps({name: about[name] for name in about if name != "sha256"}))


def with_odd_npy(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"}", b"(", 1))


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("latents.npy", with_odd_npy, "cannot be opened"),
        ("latents.npy", lambda path: np.save(path, np.load(path).astype(np.float64)), "not float16 of 5"),
        ("latents.npy", lambda path: np.save(path, np.float16(1)), "holds no numbers"),
        ("latents.npy", lambda path: np.save(path, np.load(path)[..., :0, :]), "another size"),
        ("latents.npy", lambda path: np.save(path, np.load(path)[..., :4, :4]), "another size"),
        ("masks.npy", lambda path: np.save(path, np.load(path)[..., :3]), "another size"),
        ("phenomena.npy", lambda path: np.save(path, np.load(path).astype("datetime64[s]")), "not int8 of 2"),
        ("masks.npy", lambda path: np.save(path, np.load(path)[:1]), "holds 1 clips, not 2"),
    ],
)
def test_verify_names_what_is_wrong_with_the_arrays(base: Path, name: str, damage: Callable, said: str):
    without_digests(base / "cache")
    assert all(problem.harmless for problem in verify_worlds(base / "cache"))
    damage(base / "cache" / name)
    assert any(said in str(problem) for problem in verify_worlds(base / "cache"))


@pytest.mark.parametrize(
    "fields",
    [
        {"phenomena": [False]},
        {"count": 1.5},
        {"count": -1},
        {"made_by": 3},
        {"sha256": {"latents": 1}},
        {"scale": [float("nan")]},
        {"lawful": "no"},
        {"stage": {"width": 64.0}},
    ],
)
def test_a_note_of_a_cache_has_its_types(base: Path, fields: dict):
    changed(base / "cache" / "cache.json", **fields)
    refused(lambda: cache_note(base / "cache"), "cache.json")


@pytest.mark.parametrize("fields", [{"count": "x"}, {"count": None}, {"split": 3}])
def test_the_report_names_a_damaged_note(base: Path, fields: dict):
    changed(base / "cache" / "cache.json", **fields)
    refused(lambda: data_sets(base), "cache.json", "make the cache again")


# --- pools, codes, lessons --------------------------------------------------------------------------------------------


def test_an_array_is_the_one_that_was_written(tmp_path: Path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3), np.uint8))
    assert read_npy(path, np.uint8, (2, 3)).shape == (2, 3)
    refused(lambda: read_npy(path, np.uint8, (2, 4)), "a.npy", "(2, 3)")
    refused(lambda: read_npy(path, np.int64), "a.npy", "uint8")
    path.write_bytes(b"noise")
    refused(lambda: read_npy(path), "a.npy")
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    refused(lambda: read_npy(path), "a.npy")


def test_what_another_copy_would_not_mend_is_not_said_to_be_a_damaged_one(tmp_path: Path):
    for error in (torch.OutOfMemoryError("out of memory"), MemoryError(), ImportError("needs sentencepiece")):
        with pytest.raises(ValueError, match=f"^cannot open .*: ({error}|MemoryError)$"), part_opened(tmp_path):
            raise error


def test_a_pool_of_other_clips_is_refused(tmp_path: Path):
    ClipPool(tmp_path, 2, Stage(), workers=1)
    for name, wrong in (("frames.npy", np.zeros((2, 3), np.uint8)), ("events.npy", np.zeros((2, 17, 64, 64), "O"))):
        kept = (tmp_path / name).read_bytes()
        np.save(tmp_path / name, wrong)
        refused(lambda: ClipPool(tmp_path, 2, Stage(), workers=1), "damaged pool of clips")
        (tmp_path / name).write_bytes(kept)


@pytest.mark.parametrize(
    ("name", "value"), [("mean", float("nan")), ("components", float("inf")), ("deviation", 0.0), ("deviation", -1.0)]
)
def test_a_code_that_no_cells_have_is_refused(tmp_path: Path, name: str, value: float):
    path = tmp_path / "code.safetensors"
    tensors = {"mean": torch.zeros(48), "components": torch.ones(48, 4), "deviation": torch.ones(4)}
    save_file(tensors, path)
    pooled_code(path, None, 2, 4)  # type: ignore[arg-type]  no clip is looked at
    save_file({**tensors, name: torch.full_like(tensors[name], value)}, path)
    refused(lambda: pooled_code(path, None, 2, 4), "delete it")  # type: ignore[arg-type]


def test_lessons_that_were_changed_are_refused(tmp_path: Path):
    assert len(Lessons(tmp_path, 1, "train")) == 1
    (path,) = tmp_path.rglob("*.npz")
    with np.load(path) as block:
        whole = dict(block)
    for change in (
        {"courses": whole["courses"] + 3},
        {"courses": whole["courses"].astype(np.float64)},
        {"frames": whole["frames"][:, :1]},
        {"more": whole["frames"]},
    ):
        np.savez(path, **{**whole, **change})
        refused(lambda: Lessons(tmp_path, 1, "train"), path.name, "delete it")


def test_a_kept_empty_prompt_that_is_none_counts_as_none(tmp_path: Path):
    keep_empty_text(tmp_path, {"a": 1}, torch.zeros(2, 3))
    (path,) = tmp_path.iterdir()
    assert kept_empty_text(tmp_path, {"a": 1}) is not None
    tensors = load_file(path)
    for text in (torch.zeros(3), torch.full((2, 3), float("nan"))):
        keep_empty_text(tmp_path, {"a": 1}, text)
        assert kept_empty_text(tmp_path, {"a": 1}) is None
    assert tensors["text"].shape == (2, 3)
    path.unlink()
    os.mkfifo(path)
    assert kept_empty_text(tmp_path, {"a": 1}) is None


@pytest.mark.parametrize("text", ["[]", "{}", '{"caption": 3}', "noise", "[" * 100_000])
def test_shipped_clips_whose_description_is_damaged_are_left_out(tmp_path: Path, text: str):
    folder = shutil.copytree(assets_dir() / "annotated", tmp_path / "annotated")
    whole = shipped(folder)
    assert len(whole) > 1
    (next(iter(whole.values())) / "clip.json").write_text(text)
    assert list(shipped(folder)) == list(whole)[1:]


def test_a_cycle_whose_first_phase_is_one_step_long_is_a_cycle():
    weights = torch.nn.Parameter(torch.ones(1))
    optimiser = OneCycleAdamW([weights], 0.1, steps=10, warm_up=0.1, weight_decay=0.0)
    for _ in range(9):
        weights.grad = torch.ones(1)
        optimiser.step()
    assert torch.isfinite(weights).all()
