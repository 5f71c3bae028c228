"""What is derived from clips follows them: annotations, caches, training sets, and the data that a run resumes on."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_transformer
from vlms import make_model, make_tokenizer

from prophy.annotation.annotator import Annotator
from prophy.annotation.config import AnnotationConfig
from prophy.annotation.pipeline import Outcome, annotate_all, read_skipped
from prophy.cli import main
from prophy.data.cache import TensorCache, verify
from prophy.data.folder import read_folder
from prophy.data.jobs import Geometry, Job, Shard, jobs_of, jobs_of_worlds
from prophy.data.latents import verify_worlds
from prophy.generation.pipelines import load
from prophy.phenomena import PHENOMENA
from prophy.routing.targets import TokenTargets
from prophy.training.bases import open_examples
from prophy.training.cached_examples import CachedExamples, kept_empty_text
from prophy.training.caching import fill
from prophy.training.log import read_lines
from prophy.training.publish import publish
from prophy.video import write_video
from prophy.worlds import COLOURS, Stage, drawn
from prophy.worlds.scope import SCOPE

GEOMETRY = Geometry(width=32, height=32, frames=9, fps=4.0, cell=16)
ROWS = {"a.mp4": ("a red ball bounces", "elastic motion"), "b.mp4": ("a blue candle burns", "combustion")}


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    config = AnnotationConfig(fps=4.0, min_frame_tokens=4, max_frame_tokens=16, max_answer_tokens=2)
    return Annotator(make_model("qwen2_5_vl"), make_tokenizer(), config, name="small")


def write_clip(path: Path, seed: int) -> None:
    write_video(path, np.random.default_rng(seed).integers(0, 255, (25, 32, 32, 3), dtype=np.uint8), 8.0)


def write_table(folder: Path, rows: dict[str, tuple[str, str]]) -> None:
    lines = [f'{name},{caption},"{phenomena}"' for name, (caption, phenomena) in rows.items()]
    (folder / "captions.csv").write_text("\n".join(["file,caption,phenomena", *lines]))


@pytest.fixture
def clips(tmp_path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for seed, name in enumerate(ROWS):
        write_clip(folder / name, seed)
    write_table(folder, ROWS)
    return folder


def derive(annotator: Annotator, pipeline, clips: Path) -> tuple[Outcome, list[str]]:
    """Annotate and encode what the table asks for; the clips that a training then sees, with a digest of each."""
    out, (jobs, _) = clips.parent, jobs_of(read_folder(clips).records, GEOMETRY)
    outcome = annotate_all(annotator, jobs, out / "ann", GEOMETRY, Shard(0, 1))
    fill(pipeline, jobs, out / "ann", out / "cache", GEOMETRY, Shard(0, 1))
    return outcome, [f"{entry.id} {entry.key}" for entry in TensorCache(out / "cache").entries()]


def names(seen: list[str]) -> list[str]:
    return [one.split()[0] for one in seen]


def labels_in(cache: Path) -> dict[str, list[str]]:
    opened = TensorCache(cache)
    found = {entry.id: opened.read(entry.key)["labelled"] for entry in opened.entries()}
    return {name: [p.id for p in PHENOMENA if labelled[p.index]] for name, labelled in found.items()}


def test_a_mended_caption_is_encoded_anew_and_its_targets_stay(annotator, tiny_pipeline, clips, capsys):
    _, first = derive(annotator, tiny_pipeline, clips)
    (folder,) = (clips.parent / "ann" / "clips").glob("a-*")
    before = (folder / "targets.npz").stat().st_mtime_ns
    write_table(clips, {**ROWS, "a.mp4": ("a green ball bounces", "elastic motion")})
    outcome, second = derive(annotator, tiny_pipeline, clips)
    assert (outcome.annotated, outcome.before, outcome.recaptioned) == (0, 2, ("a.mp4",))
    assert (folder / "targets.npz").stat().st_mtime_ns == before
    assert json.loads((folder / "clip.json").read_text())["caption"] == "a green ball bounces"
    assert names(second) == ["a.mp4", "b.mp4"], "training sees the old entry beside the new one"
    assert (second[0] != first[0], second[1] == first[1]) == (True, True)
    assert len(CachedExamples(TensorCache(clips.parent / "cache"), torch.zeros(1, 1))) == 2
    assert main(["cache", "verify", str(clips.parent / "cache")]) == 0
    said = capsys.readouterr().out
    assert "1 entries are superseded: the clip is another now; no training reads them: a.mp4" in said
    assert "2 clips, nothing wrong" in said
    write_table(clips, ROWS)
    _, third = derive(annotator, tiny_pipeline, clips)
    assert third == first, "the first caption has come back"


def test_a_changed_label_is_annotated_and_encoded_anew(annotator, tiny_pipeline, clips):
    derive(annotator, tiny_pipeline, clips)
    write_table(clips, {**ROWS, "b.mp4": ("a blue candle burns", "explosion, melting")})
    outcome, seen = derive(annotator, tiny_pipeline, clips)
    assert (outcome.annotated, outcome.before, outcome.changed) == (1, 1, ("b.mp4",))
    (targets,) = (clips.parent / "ann" / "clips").glob("b-*/targets.npz")
    assert {p.id for p in PHENOMENA if TokenTargets.load(targets).labelled[p.index]} == {"explosion", "melting"}
    assert names(seen) == ["a.mp4", "b.mp4"]
    assert set(labels_in(clips.parent / "cache")["b.mp4"]) == {"explosion", "melting"}


def test_a_video_replaced_under_its_name_is_annotated_and_encoded_anew(annotator, tiny_pipeline, clips):
    """Also by one of the same size and with the old time: only the content tells."""
    _, first = derive(annotator, tiny_pipeline, clips)
    video = clips / "a.mp4"
    before, data = video.stat(), bytearray(video.read_bytes())
    write_clip(video, 9)
    other = video.read_bytes()[: len(data)]
    video.write_bytes(other + b"\0" * (len(data) - len(other)))
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (video.stat().st_size, video.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    outcome, second = derive(annotator, tiny_pipeline, clips)
    assert (outcome.annotated, outcome.changed) == (1, ("a.mp4",))
    assert names(second) == names(first) == ["a.mp4", "b.mp4"]
    assert (second[0] != first[0], second[1] == first[1]) == (True, True)


def test_a_row_that_went_is_not_trained_on_and_named(annotator, tiny_pipeline, clips):
    derive(annotator, tiny_pipeline, clips)
    write_table(clips, {"a.mp4": ROWS["a.mp4"]})
    outcome, seen = derive(annotator, tiny_pipeline, clips)
    assert names(seen) == ["a.mp4"]
    assert [name.split("-")[0] for name in outcome.foreign] == ["b"]
    (problem,) = verify(clips.parent / "cache")
    assert problem.harmless
    assert "1 entries are of clips no longer asked for; no training reads them: b.mp4" in str(problem)


def test_a_renamed_clip_has_its_entry_under_its_new_name(annotator, tiny_pipeline, clips):
    _, first = derive(annotator, tiny_pipeline, clips)
    (clips / "a.mp4").rename(clips / "c.mp4")
    write_table(clips, {"c.mp4": ROWS["a.mp4"], "b.mp4": ROWS["b.mp4"]})
    _, second = derive(annotator, tiny_pipeline, clips)
    assert names(second) == ["b.mp4", "c.mp4"]
    assert [one.split()[1] for one in second] == [one.split()[1] for one in reversed(first)], "nothing is encoded anew"
    cache = TensorCache(clips.parent / "cache")
    assert (cache.missing(), verify(cache.folder)) == ([], [])
    assert CachedExamples(cache, torch.zeros(1, 1)).example(1, 0).key == "c.mp4"


def test_two_clips_that_differ_by_name_alone_are_both_there(annotator, tiny_pipeline, clips):
    shutil.copy(clips / "a.mp4", clips / "d.mp4")
    write_table(clips, {**ROWS, "d.mp4": ROWS["a.mp4"]})
    _, seen = derive(annotator, tiny_pipeline, clips)
    assert names(seen) == ["a.mp4", "b.mp4", "d.mp4"]
    cache = TensorCache(clips.parent / "cache")
    assert (cache.missing(), verify(cache.folder)) == ([], [])


def test_clips_that_change_names_with_each_other_are_made_anew(annotator, tiny_pipeline, clips):
    """Their sizes and times go with them: only the content under each name tells."""
    _, first = derive(annotator, tiny_pipeline, clips)
    for old, new in (("a.mp4", "x"), ("b.mp4", "a.mp4"), ("x", "b.mp4")):
        (clips / old).rename(clips / new)
    outcome, second = derive(annotator, tiny_pipeline, clips)
    assert (outcome.annotated, outcome.changed) == (2, ("a.mp4", "b.mp4"))
    assert names(second) == ["a.mp4", "b.mp4"]
    assert not set(first) & set(second)


def test_an_annotation_of_another_label_is_not_encoded_before_it_is_made_again(annotator, tiny_pipeline, clips, caplog):
    derive(annotator, tiny_pipeline, clips)
    write_table(clips, {**ROWS, "b.mp4": ("a blue candle burns", "explosion")})
    jobs, _ = jobs_of(read_folder(clips).records, GEOMETRY)
    folders = clips.parent / "ann", clips.parent / "cache"
    assert fill(tiny_pipeline, jobs, *folders, GEOMETRY, Shard(0, 1)) == (0, 1)
    assert "left out 1 clips whose annotation is of another video or other labels: b.mp4" in caplog.text
    assert [entry.id for entry in TensorCache(folders[1]).entries()] == ["a.mp4"]
    assert "1 of 2 clips are missing: b.mp4" in str(verify(folders[1])[0])
    examples = CachedExamples(TensorCache(folders[1]), torch.zeros(1, 1))
    assert len(examples) == 1
    assert "1 clips are not in the cache: b.mp4; see prophy cache verify" in caplog.text


def test_a_skipped_video_is_tried_again_when_it_is_another(annotator, clips):
    good = (clips / "b.mp4").read_bytes()
    (clips / "b.mp4").write_bytes(b"no video")
    jobs, _ = jobs_of(read_folder(clips).records, GEOMETRY)
    out = clips.parent / "ann"
    assert annotate_all(annotator, jobs, out, GEOMETRY, Shard(0, 1)).skipped == 1
    assert annotate_all(annotator, jobs, out, GEOMETRY, Shard(0, 1)).skipped == 1
    assert len((out / "skipped.jsonl").read_text().splitlines()) == 1, "it was tried again though it is the same"
    (clips / "b.mp4").write_bytes(good)
    outcome = annotate_all(annotator, jobs, out, GEOMETRY, Shard(0, 1))
    assert (outcome.annotated, outcome.before, outcome.skipped) == (1, 1, 0)
    assert read_skipped(out).keys() == {"b.mp4"}


def test_worlds_of_other_phenomena_are_other_clips_under_the_same_names(annotator, base, tmp_path):
    first, second = (jobs_of_worlds(3, "train", scope) for scope in (("melting", "collision"), ("gas_motion",)))
    assert [job.id for job in first] == [job.id for job in second]
    geometry = Geometry.of_worlds()
    annotate_all(annotator, first, tmp_path, geometry, Shard(0, 1))
    assert annotate_all(annotator, first, tmp_path, geometry, Shard(0, 1)).before == 3
    outcome = annotate_all(annotator, second, tmp_path, geometry, Shard(0, 1))
    assert len(outcome.changed) == outcome.annotated == 3
    with pytest.raises(ValueError, match="holds annotations of 2 other clips under these names"):
        open_examples(tmp_path / "cache", str(base), clips=2, annotations=tmp_path)


def test_annotations_without_a_digest_are_made_again(annotator, clips):
    jobs, _ = jobs_of(read_folder(clips).records, GEOMETRY)
    annotate_all(annotator, jobs, clips.parent / "ann", GEOMETRY, Shard(0, 1))
    for path in (clips.parent / "ann" / "clips").glob("*/clip.json"):
        about = json.loads(path.read_text())
        path.write_text(json.dumps({name: about[name] for name in ("id", "caption", "phenomena")}))
    assert len(annotate_all(annotator, jobs, clips.parent / "ann", GEOMETRY, Shard(0, 1)).changed) == 2


def test_a_folders_weights_are_its_revision(tmp_path):
    for seed, name in ((0, "one"), (1, "two")):
        torch.manual_seed(seed)
        model = make_model("qwen2_5_vl")
        with torch.no_grad():
            next(model.parameters()).add_(seed)
        model.save_pretrained(tmp_path / name / "same-name")
        make_tokenizer().save_pretrained(tmp_path / name / "same-name")
    config = AnnotationConfig(max_answer_tokens=2)
    opened = [Annotator.from_pretrained(tmp_path / name / "same-name", config) for name in ("one", "one", "two")]
    assert {one.name for one in opened} == {"same-name"}
    assert opened[0].revision == opened[1].revision != opened[2].revision
    annotate_all(
        opened[0], jobs_of_worlds(1, "test", ("melting",)), tmp_path / "ann", Geometry.of_worlds(), Shard(0, 1)
    )
    with pytest.raises(ValueError, match="another revision: choose another --out"):
        annotate_all(opened[2], [], tmp_path / "ann", Geometry.of_worlds(), Shard(0, 1))


def masked_jobs(captions: tuple[str, ...]) -> list[Job]:
    stage = Stage()
    made = jobs_of_worlds(len(captions), "train", ("melting", "collision"), stage=stage)
    return [Job(job.id, said, job.phenomena, job.read, job.masks) for job, said in zip(made, captions, strict=True)]


def test_a_fill_by_another_number_of_workers_leaves_no_list_of_the_first(tiny_pipeline, tmp_path):
    geometry = Geometry.of_worlds()

    def run(jobs: list[Job], shards: int, only: tuple[int, ...] | None = None) -> list[str]:
        for index in range(shards) if only is None else only:
            fill(tiny_pipeline, jobs, None, tmp_path, geometry, Shard(index, shards))
        return [f"{entry.id} {entry.key}" for entry in TensorCache(tmp_path).entries()]

    first = run(masked_jobs(("a", "b", "c")), 1)
    assert run(masked_jobs(("a", "b", "c")), 2) == first
    changed = run(masked_jobs(("a", "x", "c")), 2)
    assert (changed[0], changed[2]) == (first[0], first[2])
    assert changed[1] != first[1]
    assert names(run(masked_jobs(("y", "x", "c")), 3, only=(1,))) == names(first)[1:2], "others have not begun"
    assert "2 of 3 clips are missing" in str(verify(tmp_path)[0])
    assert len(run(masked_jobs(("y", "x", "c")), 3)) == 3
    assert all(problem.harmless for problem in verify(tmp_path))


def test_a_cache_of_an_older_release_with_a_clip_twice_is_refused(tiny_pipeline, tmp_path):
    for caption in ("a", "b"):
        fill(tiny_pipeline, masked_jobs((caption,)), None, tmp_path, Geometry.of_worlds(), Shard(0, 1))
    shutil.rmtree(tmp_path / "present")
    with pytest.raises(ValueError, match="holds 1 clips twice, before and after a change"):
        CachedExamples(TensorCache(tmp_path), torch.zeros(1, 1))
    assert "run prophy cache fill again" in str(verify(tmp_path)[-1])


def test_the_empty_prompt_beside_a_cache_is_by_its_own_encoder(base, tmp_path):
    pipeline = load(base)
    fill(pipeline, masked_jobs(("a",)), None, tmp_path, Geometry.of_worlds(), Shard(0, 1))
    recipe = TensorCache(tmp_path).recipe
    kept = kept_empty_text(tmp_path, recipe).text_LD
    assert torch.equal(open_examples(tmp_path, str(base)).empty_text_LD, kept.float())
    assert kept_empty_text(tmp_path, {**recipe, "model": "other"}) is None
    (tmp_path / "empty_text.safetensors").write_bytes(b"damaged")
    assert torch.equal(open_examples(tmp_path, str(base)).empty_text_LD, kept.float())
    other = tmp_path / "other"
    shutil.copytree(base, other)
    with torch.no_grad():
        changed = load(base)
        changed.text_encoder.shared.weight.add_(1)
    changed.text_encoder.save_pretrained(other / "text_encoder")
    for is_kept in (True, False):  # the larger model is opened in the second case alone
        with pytest.raises(ValueError, match="was made with another model than"):
            open_examples(tmp_path, str(other))
        if is_kept:
            (tmp_path / "empty_text.safetensors").unlink()


def test_a_cache_is_of_its_own_autoencoder_and_of_any_backbone_beside_it(base, tmp_path, caplog):
    """The transformer of the larger model learns from the same latents; another scale of them is another model."""
    cache, other, scaled = tmp_path / "cache", tmp_path / "other", tmp_path / "scaled"
    fill(load(base), masked_jobs(("a",)), None, cache, Geometry.of_worlds(), Shard(0, 1))
    shutil.copytree(base, other)
    changed = load(base)
    with torch.no_grad():
        changed.transformer.proj_out.weight.add_(1)
    changed.transformer.save_pretrained(other / "transformer")
    shutil.copy(other / "vae" / "diffusion_pytorch_model.safetensors", other / "vae" / "x.fp16.safetensors")
    assert len(open_examples(cache, str(other))) == 1
    assert "compared" not in caplog.text
    shutil.copytree(base, scaled)
    config = json.loads((scaled / "vae" / "config.json").read_text())
    (scaled / "vae" / "config.json").write_text(json.dumps({**config, "latents_mean": [0.5] * config["z_dim"]}))
    with pytest.raises(ValueError, match="was made with another model than"):
        open_examples(cache, str(scaled))
    with pytest.raises(ValueError, match="was made with another scale: choose another folder"):
        fill(load(scaled), masked_jobs(("a",)), None, cache, Geometry.of_worlds(), Shard(0, 1))
    about = json.loads((cache / "cache.json").read_text())
    del about["recipe"]["scale"], about["recipe"]["vocabulary"]
    (cache / "cache.json").write_text(json.dumps(about))
    fill(load(scaled), masked_jobs(("a",)), None, cache, Geometry.of_worlds(), Shard(0, 1))
    assert "was begun by a release that noted no scale and no vocabulary: not compared" in caplog.text


def test_a_cache_of_worlds_is_of_one_scale_of_latents(base, tmp_path):
    own, cache = tmp_path / "base", tmp_path / "cache"
    shutil.copytree(base, own)
    open_examples(cache, str(own), clips=2)
    path = own / "vae" / "config.json"
    config = json.loads(path.read_text())
    nearly = [value + 1e-6 for value in config["latents_mean"]]  # as measured on another day
    path.write_text(json.dumps({**config, "latents_mean": nearly}))
    assert len(open_examples(cache, str(own))) == 2
    path.write_text(json.dumps({**config, "latents_mean": [0.5] * config["z_dim"]}))
    for clips in (2, 3):
        with pytest.raises(ValueError, match="was cached with other scales of latents"):
            open_examples(cache, str(own), clips=clips)


def test_a_clip_whose_video_is_away_for_a_while_keeps_its_targets(annotator, clips):
    """Hours of a vision-language model; nothing reads them until the video is back."""
    jobs, _ = jobs_of(read_folder(clips).records, GEOMETRY)
    out = clips.parent / "ann"
    annotate_all(annotator, jobs, out, GEOMETRY, Shard(0, 1))
    files = {path: path.read_bytes() for path in out.glob("clips/*/targets.npz")}
    assert len(files) == 2
    (clips / "a.mp4").rename(clips / "away")
    outcome = annotate_all(annotator, jobs, out, GEOMETRY, Shard(0, 1))
    assert (outcome.annotated, outcome.before, outcome.skipped) == (0, 1, 1)
    assert {path: path.read_bytes() for path in out.glob("clips/*/targets.npz")} == files
    (clips / "away").rename(clips / "a.mp4")
    outcome = annotate_all(annotator, jobs, out, GEOMETRY, Shard(0, 1))
    assert (outcome.annotated, outcome.before, outcome.skipped) == (0, 2, 0)


def test_a_cache_of_worlds_is_verified(base, tmp_path, capsys):
    cache = tmp_path / "cache"
    open_examples(cache, str(base), clips=5)
    assert verify_worlds(cache) == []
    assert main(["cache", "verify", str(cache)]) == 0
    assert "5 clips, nothing wrong" in capsys.readouterr().out

    def verified(change) -> str:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(cache, tmp_path / "copy")
        change(tmp_path / "copy")
        code = main(["cache", "verify", str(tmp_path / "copy")])
        said = capsys.readouterr()
        return f"{code} {said.out} {said.err}"

    def edited(name: str, change, note: bool = False):
        def edit(folder: Path) -> None:
            array = np.load(folder / f"{name}.npy")
            np.save(folder / f"{name}.npy", change(array))
            if note:  # only a look inside can tell
                about = json.loads((folder / "cache.json").read_text())
                del about["sha256"]
                (folder / "cache.json").write_text(json.dumps(about))

        return edit

    assert "2 latents.npy: is not what was written" in verified(edited("latents", lambda a: a + 1))
    assert "2 masks.npy: holds 3 clips, not 5" in verified(edited("masks", lambda a: a[:3]))
    assert "2 ids.npy: cannot be opened" in verified(lambda folder: (folder / "ids.npy").unlink())
    assert "holds values that are not numbers" in verified(edited("latents", lambda a: a * np.nan, note=True))
    assert "clip 0 is another in this release's worlds" in verified(edited("masks", lambda a: 255 - a, note=True))
    assert "a killed process's: delete it" in verified(lambda folder: (folder / "ids.new.npy").write_bytes(b""))
    assert "does not describe a cache" in verified(lambda f: (f / "cache.json").write_text('{"made_by": 1}'))
    assert "is damaged" in verified(lambda folder: (folder / "cache.json").write_text("{"))
    old = verified(edited("ids", lambda a: a, note=True))
    assert old.startswith("0")
    assert "older release, which noted no hashes" in old


# --- a run and its data -----------------------------------------------------------------------------------------------


def train(base: Path, out: Path, steps: int, *data: str) -> int:
    settings = ("branch.sites=0,2", "batch=2", "precision=float32", f"steps={steps}", "optimiser.warm_up=1")
    flags = [part for setting in (*settings, "optimiser.decay=constant") for part in ("--set", setting)]
    where = ["--recipe", "tiny", "--model", str(base), "--out", str(out), "--workers", "0", "--log-every", "1"]
    return main(["train", *where, *flags, *data])


def steps_of(run: Path) -> list[int]:
    return [line["step"] for line in read_lines(run) if line["kind"] == "train"]


def test_a_run_is_never_resumed_on_changed_clips_however_many_steps_are_asked(base, clips, capsys):
    """A replaced video, of the same size and time as well; a caption; a label; a row more."""
    data = ("--folder", str(clips), "--size", "32x32x9", "--fps", "4")
    run = clips.parent / "run"
    assert train(base, run, 2, *data) == 0
    video, before = clips / "a.mp4", (clips / "a.mp4").stat()
    original = video.read_bytes()
    swapped = bytearray(original)
    swapped[-1] ^= 1

    def replaced() -> None:
        video.write_bytes(swapped)
        os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))

    changes = {
        "video": replaced,
        "caption": lambda: write_table(clips, {**ROWS, "a.mp4": ("a green ball bounces", "elastic motion")}),
        "label": lambda: write_table(clips, {**ROWS, "b.mp4": ("a blue candle burns", "explosion")}),
        "row": lambda: write_table(clips, {"a.mp4": ROWS["a.mp4"]}),
    }
    for what, change in changes.items():
        for steps in (2, 3):
            change()
            capsys.readouterr()
            assert train(base, run, steps, *data) == 2, f"{what}, {steps} steps"
            assert "was trained on other data" in capsys.readouterr().err, f"{what}, {steps} steps"
            video.write_bytes(original)
            write_table(clips, ROWS)
    assert train(base, run, 3, *data) == 0
    assert steps_of(run) == [1, 2, 3]


def test_a_run_of_worlds_is_not_resumed_on_other_targets(annotator, base, tmp_path, capsys):
    """Under the same recipe: a clip annotated anew with another answer."""
    annotations = tmp_path / "ann"
    open_examples(tmp_path / "cache", str(base), clips=2)
    annotate_all(annotator, jobs_of_worlds(2, "train", SCOPE), annotations, Geometry.of_worlds(), Shard(0, 1))
    data = ("--data", str(tmp_path / "cache"), "--annotations", str(annotations))
    assert train(base, tmp_path / "run", 1, *data) == 0
    path = next(annotations.glob("clips/*/targets.npz"))
    targets = TokenTargets.load(path)
    TokenTargets(targets.values * 0.5, targets.labelled, targets.grid, targets.source).save(path)
    capsys.readouterr()
    assert train(base, tmp_path / "run", 2, *data) == 2
    assert "was trained on other data" in capsys.readouterr().err


def test_a_run_of_worlds_is_not_resumed_with_another_text_encoder(base, tmp_path, capsys, caplog):
    """The cache holds the captions' tokens alone: neither it nor the backbone can tell."""
    own, data = tmp_path / "base", ("--data", str(tmp_path / "cache"), "--worlds", "4")
    shutil.copytree(base, own)
    assert train(own, tmp_path / "run", 1, *data) == 0
    changed = load(own).text_encoder
    with torch.no_grad():
        changed.encoder.final_layer_norm.weight.mul_(1.5)
    changed.save_pretrained(own / "text_encoder")
    capsys.readouterr()
    assert train(own, tmp_path / "run", 2, *data) == 2
    assert "was trained on other data" in capsys.readouterr().err
    state = tmp_path / "run" / "checkpoint" / "state.json"
    text = state.read_text()
    state.write_text(re.sub(r", text \w+, drawn \w+", "", text))
    assert train(own, tmp_path / "run", 2, *data) == 0
    assert "was begun by a release that noted no text encoder" in caplog.text


def test_a_run_of_worlds_is_not_resumed_on_worlds_that_draw_otherwise(base, tmp_path, monkeypatch, capsys, caplog):
    """A cache that was made again: masks, labels and captions are the same."""
    cache, run = tmp_path / "cache", tmp_path / "run"
    data = ("--data", str(cache), "--worlds", "4")
    assert train(base, run, 1, *data) == 0
    for name in COLOURS:
        monkeypatch.setitem(COLOURS, name, (90, 100, 110))
    drawn._drawn.cache_clear()
    try:
        assert train(base, run, 2, *data) == 2
        assert "holds clips whose pictures this release's worlds make otherwise" in capsys.readouterr().err
        shutil.rmtree(cache)
        assert train(base, run, 2, *data) == 2
        assert "was trained on other data" in capsys.readouterr().err
        state = run / "checkpoint" / "state.json"
        state.write_text(re.sub(r", drawn \w+", "", state.read_text()))
        assert train(base, run, 2, *data) == 0
        assert "was begun by a release that noted no picture of what the worlds draw" in caplog.text
    finally:
        monkeypatch.undo()
        drawn._drawn.cache_clear()


def test_clips_of_worlds_that_draw_otherwise_are_annotated_anew(annotator, tmp_path, monkeypatch):
    jobs, geometry = jobs_of_worlds(2, "train", SCOPE), Geometry.of_worlds()
    annotate_all(annotator, jobs, tmp_path, geometry, Shard(0, 1))
    assert annotate_all(annotator, jobs, tmp_path, geometry, Shard(0, 1)).before == 2
    monkeypatch.setitem(COLOURS, "red", (90, 100, 110))
    drawn._drawn.cache_clear()
    try:
        assert len(annotate_all(annotator, jobs, tmp_path, geometry, Shard(0, 1)).changed) == 2
        for path in tmp_path.glob("clips/*/clip.json"):  # as an older release, or another machine, left it
            about = json.loads(path.read_text())
            path.write_text(json.dumps({**about, "drawn": "" if "000000" in str(path) else "0 elsewhere"}))
        outcome = annotate_all(annotator, jobs, tmp_path, geometry, Shard(0, 1))
        assert (outcome.before, outcome.recaptioned) == (2, ())
    finally:
        monkeypatch.undo()
        drawn._drawn.cache_clear()


def test_a_run_of_an_older_release_is_resumed_and_says_what_is_not_compared(base, clips, caplog):
    data = ("--folder", str(clips), "--size", "32x32x9", "--fps", "4")
    run = clips.parent / "run"
    assert train(base, run, 1, *data) == 0
    path = run / "checkpoint" / "state.json"
    text = path.read_text()
    digest = text.partition(", content ")[2][:16]
    path.write_text(text.replace(f", content {digest}", ""))
    assert train(base, run, 2, *data) == 0
    assert "was begun by a release that noted no content of its clips" in caplog.text


def edit_config(path: Path, **changed) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def test_a_run_is_not_resumed_beside_a_base_of_another_scheduler_or_latent_scale(base, clips, capsys, caplog):
    """Weights, clips, captions and labels are the same: what is predicted is not."""
    own, run = clips.parent / "base", clips.parent / "run"
    shutil.copytree(base, own)
    data = ("--folder", str(clips), "--size", "32x32x9", "--fps", "4")
    assert train(own, run, 1, *data) == 0
    scheduler, vae = own / "scheduler" / "scheduler_config.json", own / "vae" / "config.json"
    mean = json.loads(vae.read_text())["latents_mean"]
    for path, changed, said in (
        (scheduler, {"flow_shift": 7.0}, "flow_shift of the scheduler was .*, now 7.0"),
        (vae, {"latents_mean": [value + 0.5 for value in mean]}, "scale of its latents is another"),
    ):
        before = path.read_text()
        edit_config(path, **changed)
        for steps in (1, 2):
            assert train(own, run, steps, *data) == 2
            told = capsys.readouterr().err
            assert re.search(
                rf"began beside another base \({said}\): give the same --model, or choose another --out", told
            )
        path.write_text(before)
    edit_config(vae, latents_mean=[value + 1e-6 for value in mean])  # measured once more
    assert train(own, run, 2, *data) == 0
    state = run / "checkpoint" / "state.json"
    plan = json.loads(state.read_text())
    plan["__dict__"] = [pair for pair in plan["__dict__"] if pair[0] != "base_config"]
    state.write_text(json.dumps(plan))
    edit_config(scheduler, flow_shift=7.0)
    assert train(own, run, 3, *data) == 0
    assert "was begun by a release that noted no scheduler and no scale of latents" in caplog.text
    assert train(own, run, 3, *data) == 0, "now it is noted"


def test_a_run_is_not_resumed_in_another_configuration_of_the_same_tensors(base, clips, capsys):
    own, run = clips.parent / "base", clips.parent / "run"
    shutil.copytree(base, own)
    data = ("--folder", str(clips), "--size", "32x32x9", "--fps", "4")
    assert train(own, run, 1, *data) == 0
    config = own / "transformer" / "config.json"
    before = json.loads(config.read_text())
    heads, width = before["num_attention_heads"], before["attention_head_dim"]
    for changed, said in (
        (
            {"num_attention_heads": heads // 2, "attention_head_dim": width * 2},
            f"attention_head_dim was {width}, now {2 * width}, num_attention_heads was {heads}",
        ),
        ({"eps": 0.01}, "eps was 1e-06, now 0.01"),
    ):
        edit_config(config, **changed)
        assert train(own, run, 2, *data) == 2
        told = capsys.readouterr().err
        assert f"{run} began beside another transformer ({said}" in told
        assert "give the same --model, or choose another --out" in told
        edit_config(config, **before)
    assert train(own, run, 2, *data) == 0
    assert steps_of(run) == [1, 2]


def test_weights_that_learnt_beside_another_scheduler_are_no_initial_ones(base, tmp_path, capsys):
    own, published, data = tmp_path / "base", tmp_path / "published", ("--data", str(tmp_path / "cache"))
    shutil.copytree(base, own)
    assert train(own, tmp_path / "first", 1, *data, "--worlds", "2") == 0
    publish(tmp_path / "first", published)
    assert train(own, tmp_path / "second", 1, *data, "--initial", str(published)) == 0
    edit_config(own / "scheduler" / "scheduler_config.json", flow_shift=7.0)
    whole = tmp_path / "whole"
    load(base, branch=str(published)).save_pretrained(whole)
    for initial in (published, whole):
        assert train(own, tmp_path / "third", 1, *data, "--initial", str(initial)) == 2
        told = capsys.readouterr().err
        assert f"the weights in {initial} learnt beside another base (flow_shift of the scheduler was" in told
        assert "give that one with --model, or another --initial" in told
    about = published / "training" / "run.json"
    about.write_text(json.dumps({k: v for k, v in json.loads(about.read_text()).items() if k != "base_config"}))
    assert train(own, tmp_path / "third", 1, *data, "--initial", str(published)) == 0, "an older release noted none"


def test_a_run_is_not_resumed_on_a_base_of_other_weights_under_the_same_name(base, tmp_path, capsys):
    """Encoders and worlds are the same: the training set cannot tell."""
    own = tmp_path / "base"
    shutil.copytree(base, own)
    data = ("--data", str(tmp_path / "cache"), "--worlds", "4")
    assert train(own, tmp_path / "run", 1, *data) == 0
    changed = make_transformer()
    with torch.no_grad():
        changed.blocks[1].ffn.net[2].bias.add_(1e-3)
    changed.save_pretrained(own / "transformer")
    capsys.readouterr()
    assert train(own, tmp_path / "run", 2, *data) == 2
    assert (
        "began with a base of other weights: give the same --model, or choose another --out" in capsys.readouterr().err
    )
    shutil.rmtree(own / "transformer")
    shutil.copytree(base / "transformer", own / "transformer")
    assert train(own, tmp_path / "run", 2, *data) == 0
    assert steps_of(tmp_path / "run") == [1, 2]


def test_a_run_is_not_resumed_from_other_initial_weights_and_names_other_held_out_clips(base, tmp_path, capsys, caplog):
    data = ("--data", str(tmp_path / "cache"), "--worlds", "2")
    held_out = ("--held-out", str(tmp_path / "others"), "--held-out-worlds", "1")
    assert train(base, tmp_path / "first", 1, *data) == 0
    publish(tmp_path / "first", tmp_path / "published")
    run = tmp_path / "run"
    assert train(base, run, 1, *data, *held_out, "--initial", str(tmp_path / "published")) == 0
    assert train(base, run, 2, *data, "--initial", str(tmp_path / "published")) == 0
    assert train(base, run, 3, *data) == 0
    assert train(base, tmp_path / "first", 2, *data) == 0
    publish(tmp_path / "first", tmp_path / "published")
    capsys.readouterr()
    assert train(base, run, 4, *data, "--initial", str(tmp_path / "published")) == 2
    assert "began with other weights than those of --initial: leave it out to resume" in capsys.readouterr().err
    assert train(base, tmp_path / "first", 3, *data, "--initial", str(tmp_path / "published")) == 2
    assert "compare" not in caplog.text
    assert train(base, run, 4, *data, *held_out[:3], "2") == 0
    assert "was validated on other clips until step 3" in caplog.text
    assert steps_of(run) == [1, 2, 3, 4]


def test_a_base_whose_weights_exist_as_one_variant_only_is_trained(base, tmp_path):
    """Transformer, autoencoder, text encoder and the branch to start from: each is opened where it is."""
    own, data = tmp_path / "base", ("--data", str(tmp_path / "cache"), "--worlds", "2")
    shutil.copytree(base, own)
    for path in own.glob("*/*.safetensors"):
        path.rename(path.with_suffix(".fp16.safetensors"))
    assert train(own, tmp_path / "first", 1, *data) == 0
    publish(tmp_path / "first", tmp_path / "published")
    (branch,) = (tmp_path / "published").glob("diffusion_pytorch_model.safetensors")
    branch.rename(branch.with_suffix(".fp16.safetensors"))
    assert train(own, tmp_path / "run", 1, *data, "--initial", str(tmp_path / "published")) == 0
