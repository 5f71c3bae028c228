"""The sharded cache: keys, going on, damage named, and filling it with any pipeline's autoencoder and text encoder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline
from vlms import make_model, make_tokenizer

from prophy.annotation.annotator import Annotator
from prophy.annotation.config import AnnotationConfig
from prophy.annotation.pipeline import annotate_all
from prophy.cli import main
from prophy.data.cache import TensorCache, verify
from prophy.data.encode import encode_caption, encode_clip
from prophy.data.jobs import WORLDS, Geometry, Job, Shard, jobs_of_worlds
from prophy.routing.targets import TokenTargets
from prophy.training import caching
from prophy.training.caching import fill
from prophy.worlds import Stage, sample_clip

RECIPE = {"model": "abc", "frames": 17, "dtype": "float16"}


def tensors(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(4, 3, 2, 5, generator=generator).half(),
        "text": torch.randn(7, 6, generator=generator).bfloat16(),
        "labelled": torch.arange(17) % 3 == seed % 3,
    }


@pytest.fixture
def cache(tmp_path) -> TensorCache:
    """Seven clips in shards of three, of eight that should be there."""
    cache = TensorCache(tmp_path / "cache", RECIPE)
    cache.expect(f"clip {i}" for i in range(8))
    with cache.writer("worker", clips_per_shard=3) as writer:
        for i in range(7):
            writer.add(f"clip {i}", cache.key(str(i)), tensors(i))
    return cache


def test_what_was_written_is_read_again_bit_by_bit(cache):
    assert sorted(path.name for path in cache.folder.glob("*.safetensors")) == [
        f"worker-0000{i}.safetensors" for i in range(3)
    ]
    again = TensorCache(cache.folder)
    assert again.recipe == RECIPE
    assert [entry.id for entry in again.entries()] == [f"clip {i}" for i in range(7)]
    for i in range(7):
        for name, tensor in again.read(again.key(str(i))).items():
            assert tensor.dtype == tensors(i)[name].dtype
            assert torch.equal(tensor, tensors(i)[name])


def test_a_changed_clip_or_recipe_has_another_key(cache):
    assert cache.key("0") in cache
    assert cache.key("0, changed") not in cache
    other = TensorCache(cache.folder.with_name("other"), {**RECIPE, "frames": 33})
    assert other.key("0") != cache.key("0")
    with pytest.raises(ValueError, match="made with another frames: choose another folder"):
        TensorCache(cache.folder, {**RECIPE, "frames": 33})
    with pytest.raises(FileNotFoundError, match="holds no cache"):
        TensorCache(cache.folder.with_name("nothing"))


def test_a_second_worker_and_a_later_run_add_shards_and_change_none(cache):
    before = {path: path.read_bytes() for path in cache.folder.glob("worker*")}
    for name in ("worker", "second"):
        late = TensorCache(cache.folder, RECIPE)
        with late.writer(name) as writer:
            writer.add(f"by {name}", late.key(name), tensors(9))
    assert len(TensorCache(cache.folder)) == 9
    assert {path: path.read_bytes() for path in before} == before


def test_what_is_waiting_is_written_when_an_error_ends_the_work(cache):
    def fail():
        with cache.writer("late") as writer:
            writer.add("clip 7", cache.key("7"), tensors(7))
            raise RuntimeError("the worker was told to stop")

    with pytest.raises(RuntimeError):
        fail()
    assert cache.key("7") in TensorCache(cache.folder)


def test_a_full_disk_is_named_and_written_shards_stay(cache):
    """In a process of its own, whose limit on a file's size stands for a full disk."""
    code = (
        "import resource, sys, torch; from prophy.data.cache import TensorCache;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)); cache = TensorCache(sys.argv[1])\n"
        "with cache.writer('late') as writer: writer.add('big', 'key', {'latents': torch.zeros(9999)})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(cache.folder)], capture_output=True, text=True, check=False)
    assert "make room and run again, written shards stay" in done.stderr
    assert len(TensorCache(cache.folder)) == 7


def test_values_that_are_not_numbers_are_never_stored(cache):
    with cache.writer("bad") as writer, pytest.raises(ValueError, match="latents of clip 7 holds values"):
        writer.add("clip 7", cache.key("7"), {"latents": torch.tensor([1.0, float("nan")])})


def test_a_sound_cache_misses_only_the_clips_that_nobody_encoded(cache, capsys):
    assert [str(problem) for problem in verify(cache.folder)] == ["clips.txt: 1 of 8 clips are missing: clip 7"]
    assert main(["cache", "verify", str(cache.folder)]) == 2
    assert "clip 7" in capsys.readouterr().out
    cache.expect(f"clip {i}" for i in range(7))
    assert verify(cache.folder) == []
    assert main(["cache", "verify", str(cache.folder)]) == 0
    assert "7 clips, nothing wrong" in capsys.readouterr().out


def rewritten(shard: Path, change) -> None:
    """Change a shard's tensors and its recorded hash, so that only a look inside can tell."""
    import hashlib

    values = load_file(shard)
    change(values)
    save_file(values, shard)
    index = json.loads(shard.with_suffix(".json").read_text())
    index["sha256"] = hashlib.sha256(shard.read_bytes()).hexdigest()
    shard.with_suffix(".json").write_text(json.dumps(index))


def damage_flip(folder: Path) -> None:
    data = bytearray((folder / "worker-00001.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "worker-00001.safetensors").write_bytes(bytes(data))


def damage_cut(folder: Path) -> None:
    path = folder / "worker-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def damage_shape(folder: Path) -> None:
    rewritten(
        folder / "worker-00001.safetensors",
        lambda t: t.update({k: v.flatten() for k, v in t.items() if k.endswith("latents")}),
    )


def damage_nan(folder: Path) -> None:
    rewritten(
        folder / "worker-00001.safetensors",
        lambda t: [v.fill_(float("nan")) for k, v in t.items() if k.endswith("text")],
    )


def damage_tensor_gone(folder: Path) -> None:
    rewritten(folder / "worker-00001.safetensors", lambda t: [t.pop(k) for k in list(t) if k.endswith("labelled")])


def damage_no_index(folder: Path) -> None:
    (folder / "worker-00001.json").unlink()


def damage_no_shard(folder: Path) -> None:
    (folder / "worker-00001.safetensors").unlink()


def damage_index(folder: Path) -> None:
    (folder / "worker-00001.json").write_text('{"sha256": 1')


def damage_left_over(folder: Path) -> None:
    (folder / "worker-00003.safetensors.new").write_bytes(b"half")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_flip, "its hash differs"),
        (damage_cut, "its hash differs"),
        (damage_shape, "latents of clip 3 is float16 (120,), not float16 (4, 3, 2, 5)"),
        (damage_nan, "text of clip 3 holds values that are not numbers"),
        (damage_tensor_gone, "labelled of clip 3 is missing"),
        (damage_no_index, "has no .json beside it"),
        (damage_no_shard, "worker-00001.safetensors: is missing"),
        (damage_index, "worker-00001.json is damaged"),
        (damage_left_over, "a killed worker's: delete it"),
    ],
)
def test_every_kind_of_damage_is_named(cache, damage, said):
    damage(cache.folder)
    problems = "\n".join(map(str, verify(cache.folder)))
    assert said in problems
    assert "worker-00000" not in problems, "a sound shard is blamed"
    if damage is not damage_left_over:
        assert "4 of 8 clips are missing: clip 3, clip 4, clip 5, clip 7" in problems


def test_no_cache_and_one_of_another_format_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no cache"):
        verify(tmp_path)
    (tmp_path / "cache.json").write_text('{"format": "other", "recipe": {}}')
    with pytest.raises(ValueError, match="is of format 'other'"):
        verify(tmp_path)


# --- filling


GEOMETRY = Geometry(width=32, height=32, frames=9, fps=4.0, cell=16)


def jobs(count: int) -> list[Job]:
    def frames(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 255, (9, 32, 32, 3), dtype=np.uint8)

    return [Job(f"clip {i}", "a red ball", ("melting",), lambda i=i: frames(i)) for i in range(count)]


@pytest.fixture(scope="module")
def annotations(tmp_path_factory) -> Path:
    config = AnnotationConfig(fps=4.0, min_frame_tokens=4, max_frame_tokens=16, max_answer_tokens=2)
    out = tmp_path_factory.mktemp("annotations")
    annotator = Annotator(make_model("qwen2_5_vl"), make_tokenizer(), config, name="small")
    annotate_all(annotator, jobs(4), out, GEOMETRY, Shard(0, 1))
    return out


def test_filling_goes_on_where_it_stopped_and_only_annotated_clips_go_in(tiny_pipeline, annotations, tmp_path):
    out = tmp_path / "cache"
    shards = [Shard(0, 2), Shard(1, 2)]
    assert fill(tiny_pipeline, jobs(5), annotations, out, GEOMETRY, shards[0]) == (2, 1)
    assert fill(tiny_pipeline, jobs(5), annotations, out, GEOMETRY, shards[0]) == (0, 1)
    assert "2 of 4 clips are missing" in str(verify(out)[0])
    assert fill(tiny_pipeline, jobs(5), annotations, out, GEOMETRY, shards[1]) == (2, 0)
    assert verify(out) == []
    cache = TensorCache(out)
    found = cache.read(cache.entries()[0].key)
    assert found["targets"].shape == (GEOMETRY.grid.num_tokens, 17)
    torch.testing.assert_close(found["latents"], encode_clip(tiny_pipeline, jobs(1)[0].read()))
    with pytest.raises(ValueError, match="was made for other clips"):
        fill(tiny_pipeline, jobs(5), annotations, out, Geometry(32, 32, 5, 4.0, 16), shards[0])
    with pytest.raises(FileNotFoundError, match="holds no annotations"):
        fill(tiny_pipeline, jobs(5), tmp_path, out, GEOMETRY, shards[0])


def test_the_worlds_fill_a_cache_with_their_masks_as_targets_at_any_size(tiny_pipeline, tmp_path):
    out, stage = tmp_path / "cache", Stage(96, 64, 33, 16)
    geometry = Geometry.of_worlds(stage)
    worlds = jobs_of_worlds(2, "train", ("melting", "refraction"), stage=stage)
    assert fill(tiny_pipeline, worlds, None, out, geometry, Shard(0, 1)) == (2, 0)
    assert fill(tiny_pipeline, worlds, None, out, geometry, Shard(0, 1)) == (0, 0)
    assert verify(out) == []
    cache = TensorCache(out)
    for seed, entry in enumerate(cache.entries()):
        clip, found = sample_clip(seed, "train", ("melting", "refraction"), stage), cache.read(entry.key)
        assert found["latents"].shape[1:] == geometry.grid.shape == (9, 8, 12)
        expected = TokenTargets.from_masks(clip.masks, geometry.grid, "worlds")
        torch.testing.assert_close(found["targets"], torch.from_numpy(expected.values).half())
        assert found["labelled"].tolist() == expected.labelled.tolist()
    with pytest.raises(ValueError, match="a token of this model is 8 pixels wide, not 16: give --cell 8"):
        fill(tiny_pipeline, worlds, None, out, Geometry.of_worlds(stage, 16), Shard(0, 1))
    with pytest.raises(ValueError, match="another folder|other"):
        fill(tiny_pipeline, worlds, None, out, WORLDS, Shard(0, 1))


def test_only_the_worlds_are_encoded_without_annotations():
    with pytest.raises(ValueError, match="only the worlds know where their phenomena are: give --annotations"):
        caching.main(["fill", "--data", "folder", "--path", "x"])


def test_latents_and_text_are_what_each_pipeline_gives_its_transformer(tiny_pipeline):
    frames = jobs(1)[0].read()
    video = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    tiny_pipeline.vae.register_to_config(latents_mean=[0.5, -1.0, 0.0, 2.0], latents_std=[2.0, 1.0, 0.5, 1.0])
    with torch.no_grad():
        raw = tiny_pipeline.vae.encode(video).latent_dist.mode()[0]
    scaled = encode_clip(tiny_pipeline, frames)
    for channel, (mean, std) in enumerate(zip([0.5, -1.0, 0.0, 2.0], [2.0, 1.0, 0.5, 1.0], strict=True)):
        torch.testing.assert_close(scaled[channel] * std + mean, raw[channel])
    text = encode_caption(tiny_pipeline, "a red ball")
    assert text.shape[1] == 24
    cogvideox = make_cogvideox_pipeline(make_cogvideox())
    with torch.no_grad():
        raw = cogvideox.vae.encode(video).latent_dist.mode()[0]
    torch.testing.assert_close(encode_clip(cogvideox, frames), raw * 0.7)
    assert encode_caption(cogvideox, "a red ball").shape[1] == 24
