"""Targets of ``tests/fuzz.py``: files that the package keeps for itself. The judges of the evaluation, pools and caches
of the worlds, linear codes, lessons, small trainings and their parts, annotations, and what lies beside videos and
branches.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from conftest import make_text_encoder, make_vae
from mutations import Target, of_files
from test_experts import MEASURED
from torch import nn

from prophy.annotation.cli import main as annotate
from prophy.annotation.pipeline import ABOUT, RECIPE, SKIPPED, ClipInputs, read_skipped
from prophy.assets import assets_dir
from prophy.catalogue.experts import FILE, read_experts
from prophy.data.clip_pool import ClipPool
from prophy.data.jobs import WORLDS, jobs_of_worlds
from prophy.data.latents import open_cache
from prophy.data.wisa import read_wisa
from prophy.evaluation.benchmarks.pairs import read_pair_folder
from prophy.evaluation.benchmarks.prompts import BenchmarkPrompt, PromptSet
from prophy.evaluation.judges import looks, recogniser, segmenter
from prophy.evaluation.judges.fit import save_fitted
from prophy.evaluation.measures.autoencoder import open_autoencoder
from prophy.evaluation.measures.figures import read_prompts
from prophy.evaluation.report.page import data_sets
from prophy.evaluation.results.documents import write_json
from prophy.evaluation.results.judges import RecogniserRecipe, SegmenterRecipe
from prophy.evaluation.results.looks import LooksRecipe
from prophy.evaluation.results.protocol import PROTOCOL, Protocol
from prophy.tiny.linear_code import pooled_code
from prophy.tiny.parts import load_parts
from prophy.tiny.text import build_tokenizer
from prophy.tiny.vlm_lessons import Lessons
from prophy.training import caching
from prophy.training.cached_examples import keep_empty_text, kept_empty_text
from prophy.training.fit import fit
from prophy.training.optim import OneCycleAdamW
from prophy.training.world_examples import open_worlds
from prophy.ui.engine.models import _vocabulary
from prophy.ui.tabs.annotate import shipped
from prophy.worlds import Stage, WorldSet


def kept(folder: Path) -> Iterator[Target]:
    """Every loader of them, with a valid file of its kind.

    Args:
        folder: where the files are written.
    """
    yield from judges(folder / "judges")
    yield from worlds(folder / "worlds")
    yield from small_trainings(folder / "trainings")
    yield from annotations(folder / "annotations")
    yield from beside(folder / "beside")


def judges(folder: Path) -> Iterator[Target]:
    """The evaluation's small judges, untrained. The control without images is kept in no file."""
    small = {"width": 8, "clips": 1, "test_clips": 1}
    of_looks, of_clips, of_tokens = LooksRecipe(**small), RecogniserRecipe(**small), SegmenterRecipe(**small)
    for name, model, recipe, load in (
        (looks.NAME, looks.LooksJudge(8), of_looks, looks.load_looks_judge),
        (recogniser.NAME, recogniser.Recogniser(8), of_clips, recogniser.load_recogniser),
        (segmenter.NAME, segmenter.Segmenter(8, segmenter.grid_of(of_tokens)), of_tokens, segmenter.load_segmenter),
    ):
        save_fitted(model, recipe, folder / name, name)
        yield of_files(f"judge: {name}", folder / name, "*", load)


def worlds(folder: Path) -> Iterator[Target]:
    """What is rendered or computed of the synthetic worlds, and kept."""
    stage = Stage()
    ClipPool(folder / "pool", 2, stage, workers=1)

    def read_pool(path: Path) -> None:
        pool = ClipPool(path, 2, stage, workers=1)
        if pool.frames[1].shape != (17, 64, 64, 3) or pool.events[1].shape != (17, 64, 64):
            raise TypeError("the clips are of another shape")

    yield of_files("pool of clips", folder / "pool", "*.npy", read_pool)
    code = folder / "code.safetensors"
    pool = ClipPool(folder / "pool", 2, stage, workers=1)
    pooled_code(code, pool, side=2, channels=4)
    video = torch.zeros(1, 3, 5, 8, 8)

    def read_code(path: Path) -> None:
        read = pooled_code(path, pool, side=2, channels=4)
        if not read.decode(read.encode(video)).isfinite().all():
            raise TypeError("values that are not numbers")

    yield of_files("linear code", code, "*", read_code)
    base, cache = folder / "base", folder / "cache"
    few = WorldSet(("melting",))
    tokenizer = build_tokenizer(few.captions(0, 9) + few.captions(1, 9))
    make_vae(8).save_pretrained(base / "vae")
    tokenizer.save_pretrained(base / "tokenizer")
    make_text_encoder(len(tokenizer)).save_pretrained(base / "text_encoder")
    open_cache(cache, make_vae(8), tokenizer, 2, few)
    digestless = folder / "digestless"  # as older releases wrote them: then the arrays themselves are looked at
    shutil.copytree(cache, digestless)
    about = json.loads((cache / "cache.json").read_text())
    (digestless / "cache.json").write_text(json.dumps({name: about[name] for name in about if name != "sha256"}))

    def verify(path: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            caching.main(["verify", str(path)])

    for name, path in (("cache of worlds", cache), ("cache of worlds without digests", digestless)):
        yield of_files(f"{name}: verify", path, "*", verify)
    yield of_files(
        "cache of worlds: a training's", cache, "*", lambda path: open_worlds(path, base, clips=2).read([0, 1], [0, 1])
    )
    (folder / "report" / "cache").mkdir(parents=True)
    shutil.copy(cache / "cache.json", folder / "report" / "cache")
    yield of_files("cache of worlds: the report's", folder / "report", "cache.json", data_sets)
    yield of_files("base of small parts", base, "*", load_parts)
    yield of_files("an autoencoder's", base, "*", lambda path: open_autoencoder(path, torch.device("cpu")))
    words = base / "tokenizer" / "tokenizer.json"
    yield of_files("words of a model", words, "*", _vocabulary)
    Lessons(folder / "lessons", 2, "train")
    yield of_files("lessons of the small VLM", folder / "lessons", "*", lambda path: Lessons(path, 2, "train"))


def small_trainings(folder: Path) -> Iterator[Target]:
    """The folder of a small training, such as the text encoder's, that is resumed."""
    recipe = RecogniserRecipe(steps=4)

    def train(path: Path) -> None:
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
        optimiser = OneCycleAdamW(list(model.parameters()), 0.1, steps=4, warm_up=0.5, weight_decay=0.0)
        fit(model, lambda _: model(torch.ones(1, 2)).sum(), optimiser, steps=4, name="x", recipe=recipe, folder=path)

    train(folder / "run")
    yield of_files("small training", folder / "run", "*", train)


def annotations(folder: Path) -> Iterator[Target]:
    """What ``prophy annotate`` leaves beside its targets."""
    jobs = jobs_of_worlds(1, "train", ("melting",))
    (folder / "clips" / jobs[0].folder).mkdir(parents=True)
    (folder / RECIPE).write_text(json.dumps({"model": "x", "geometry": asdict(WORLDS)}))
    (folder / SKIPPED).write_text(json.dumps({"id": "a", "reason": "no video", "content": "x"}) + "\n")
    yield of_files("annotations: how", folder, RECIPE, lambda path: caching._recipe_of(path, WORLDS))
    yield of_files("annotations: skipped", folder, SKIPPED, read_skipped)
    shown = next(path for path in sorted((assets_dir() / "annotated").iterdir()) if path.is_dir())
    shutil.copytree(shown, folder / "shown" / shown.name)
    yield of_files("annotations: of what", folder / "shown" / shown.name, ABOUT, ClipInputs.read)
    yield of_files("annotations: the page's", folder / "shown", ABOUT, shipped)

    def show(path: Path) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            annotate(["show", str(path), "--out", str(folder / "shown.png")])

    yield of_files("annotations: shown", folder / "shown" / shown.name, "*", show)
    cache = folder / "cache"
    cache.mkdir()
    keep_empty_text(cache, {"a": 1}, torch.zeros(2, 3))
    yield of_files("empty prompt of a cache", cache, "*", lambda path: kept_empty_text(path, {"a": 1}))


def beside(folder: Path) -> Iterator[Target]:
    """What lies beside a branch, beside videos, and with their prompts."""
    write_json(folder / FILE, MEASURED)
    yield of_files("experts' names", folder, FILE, lambda path: read_experts("x", path))
    prompts = PromptSet("x", "0" * 64, "caption", (BenchmarkPrompt("a", "a ball", "a ball", None, "x"),), ())
    yield of_files("prompts that were made", prompts.save(folder / "prompts.json"), "*", PromptSet.load)
    made = Protocol("x", "0" * 64, "caption", 1, "0" * 64, True, 0, 4, 3.0, 17, 64, 64, 8.0)
    write_json(folder / "videos" / PROTOCOL, made.to_json())
    yield of_files("protocol of videos", folder / "videos", PROTOCOL, Protocol.load)
    pairs = folder / "pairs"
    for kind in ("valid_00", "over_bounce_00"):
        video = pairs / "ball_drop_videos" / "a" / f"{kind}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        video.write_bytes(b"x")
    asked = folder / "asked.json"
    asked.write_text(json.dumps([{"prompt": "ice melts", "phenomena": ["melting"]}, {"prompt": "x", "phenomena": []}]))
    yield of_files("prompts with phenomena", asked, "*", read_prompts)
    captions = folder / "captions.json"
    captions.write_text(json.dumps({"ball_drop": "a ball falls"}))
    yield of_files("captions of pairs", captions, "*", lambda path: read_pair_folder(pairs, path))
    answers = {f"q{i}": "no" for i in range(5)}
    record = {"video_name": "a.mp4", "captions": "Ice melts.", "physical_annotation": answers, "fps": 24, "width": 640}
    wisa = folder / "wisa.json"
    wisa.write_text(json.dumps([record, {**record, "video_name": "b.mp4"}]))
    yield of_files("WISA's metadata", wisa, "*", read_wisa)
