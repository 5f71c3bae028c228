"""Targets of ``tests/fuzz.py``: files that people bring. LoRAs, configurations of a hub, of DeepSpeed and for the plan,
tables of benchmarks and judges, and the folders that the Training tab shows.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import test_lora
import test_videophy2
import torch
from conftest import make_branch, make_pipeline, make_transformer
from mutations import Fault, Target, of_files
from safetensors.torch import save_file
from synthetic import make_frames, make_record, make_trace

from prophy.backbones.lora import adapted_layers
from prophy.catalogue.describe import describe_model
from prophy.catalogue.limits import ClipSize
from prophy.catalogue.lora import LoraSource
from prophy.catalogue.published import PUBLISHED, PublishedModel
from prophy.evaluation.benchmarks.prompts import read_phygenbench, read_phyground, read_videophy2
from prophy.evaluation.benchmarks.vbench import read_vbench
from prophy.evaluation.benchmarks.videophy2 import read_scores
from prophy.generation.identity import model_hash
from prophy.generation.pipelines import load
from prophy.memory.plan import plan
from prophy.runs.record import RunError
from prophy.runs.store import write_run
from prophy.training.curves import CHARTS
from prophy.training.deepspeed import read_settings
from prophy.training.run_folder import Trainings
from prophy.ui.tabs.training import facts_of, notice_of

_REVISION = "0" * 40


def brought(folder: Path, training: Path, hub: Path) -> Iterator[Target]:
    """Every loader of them, with a valid file of its kind.

    Args:
        folder: where the files are written.
        training: the folder of a run.
        hub: where the hub's client keeps what it has downloaded.
    """
    yield from loras(folder)
    yield whole_model(folder / "whole")
    yield from configurations(folder, hub)
    yield from tables(folder)
    yield shown_training(folder, training)


def loras(folder: Path) -> Iterator[Target]:
    """LoRAs of several conventions; refused or applied, the model is afterwards as it was."""
    pipeline = test_lora.wan()
    before = {name: tensor.clone() for name, tensor in pipeline.transformer.state_dict().items()}
    pairs = dict(list(test_lora.pairs_for(pipeline.transformer.blocks).items())[:4])

    def apply(path: Path) -> None:
        try:
            pipeline.add_loras([LoraSource(path)])
        finally:
            pipeline.unload_lora_weights()
            after = pipeline.transformer.state_dict()
            if adapted_layers(pipeline.transformer) or after.keys() != before.keys():
                raise Fault("the adapter is still there")
            if not all(torch.equal(tensor, before[name]) for name, tensor in after.items()):
                raise Fault("the weights are others")

    for form in ("diffusers", "peft", "musubi", "lightx2v"):
        path = test_lora.write_wan(folder / f"{form}.safetensors", pairs, form)
        yield of_files(f"LoRA as {form}", path, "*", apply)
    peft = folder / "peft"
    peft.mkdir()
    tensors = {
        test_lora.wan_key("peft", *place, down): pair[not down].contiguous()
        for place, pair in pairs.items()
        for down in (True, False)
    }
    save_file(tensors, peft / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["to_q", "to_k"], "use_dora": False}
    (peft / "adapter_config.json").write_text(json.dumps({**config, "rank_pattern": {}, "alpha_pattern": {"to_q": 2}}))
    yield of_files("LoRA: peft's configuration", peft, "*.json", apply)


def whole_model(folder: Path) -> Target:
    """A model with its branch, opened and named by its weights."""
    transformer = make_transformer()
    make_pipeline(transformer, make_branch(transformer, trained=True)).save_pretrained(folder)
    return of_files("model, opened", folder, "*", lambda path: model_hash(load(path, device="cpu")))


def configurations(folder: Path, hub: Path) -> Iterator[Target]:
    """Of published models as the hub has them, of the embedded one for the plan, and DeepSpeed's."""
    for key, known in PUBLISHED.items():
        snapshot = hub / f"models--fuzz--{key}" / "snapshots" / _REVISION
        write_configuration(snapshot, known)
        refs = snapshot.parents[1] / "refs" / "main"
        refs.parent.mkdir()
        refs.write_text(f"{_REVISION}-changed")

        def describe(_: Path, repo: str = f"fuzz/{key}") -> None:
            described = describe_model(repo)
            _ = described.rules, described.defaults

        yield of_files(f"hub configuration of {key}", snapshot, "*.json", describe)
    small = folder / "planned"
    write_configuration(small, next(iter(PUBLISHED.values())), num_layers=2)
    yield of_files("plan", small, "*.json", lambda path: plan(path, ClipSize(64, 64, 17)))
    zero = folder / "zero.json"
    zero.write_text(json.dumps({"zero_optimization": {"stage": 2}, "wall_clock_breakdown": False}))
    yield of_files("DeepSpeed configuration", zero, "*", read_settings)


def write_configuration(folder: Path, known: PublishedModel, **changes: object) -> None:
    """The small files of a published model."""
    parts = {
        "transformer": ("diffusers", known.transformer_class, {**known.transformer, **changes}),
        "vae": ("diffusers", known.vae_class, dict(known.vae)),
        "text_encoder": ("transformers", known.text_encoder_class, dict(known.text_encoder)),
        "tokenizer": ("transformers", "T5TokenizerFast", {"model_max_length": known.text_tokens}),
    }
    index = {name: [library, kind] for name, (library, kind, _) in parts.items()}
    if known.transformers == 2:
        index["transformer_2"] = index["transformer"]
    for name, (_, _, config) in parts.items():
        path = folder / name / ("tokenizer_config.json" if name == "tokenizer" else "config.json")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(config))
    (folder / "model_index.json").write_text(json.dumps({**index, **known.pipeline_config}))


def tables(folder: Path) -> Iterator[Target]:
    """What benchmarks publish and judges write."""
    official = test_videophy2.write_official_csv(folder / "videophy2.csv", captions=2, videos=1)
    yield of_files("VideoPhy2's prompts", official, "*", read_videophy2)
    prompts = read_videophy2(official)
    judged = folder / "judged.csv"
    rows = "".join(f"/runs/{prompt.stem}.mp4,{prompt.caption!r},4.0\n" for prompt in prompts.prompts)
    judged.write_text("videopath,caption,score\n" + rows.replace("'", '"'))
    yield of_files("a judge's table", judged, "*", lambda path: read_scores(path, prompts))
    laws = {"physical_laws": ["gravity"], "sub_category": "a", "main_category": "b"}
    for name, entry, read in (
        ("PhyGenBench's prompts", {"caption": "a ball falls", **laws}, read_phygenbench),
        ("PhyGround's prompts", {"id": 1, "prompt": "a ball falls", "id_stem": "a-1", **laws}, read_phyground),
    ):
        path = folder / f"{name[:5]}.json"
        path.write_text(json.dumps([entry, {**entry, "id_stem": "a-2", "id": 2}]))
        yield of_files(name, path, "*", read)
    path = folder / "vbench.json"
    path.write_text(json.dumps(test_videophy2.vbench_document()))
    yield of_files("VBench's result", path, "*", lambda path: read_vbench([path]))


def shown_training(folder: Path, training: Path) -> Target:
    """What the Training tab makes of a run's folder. Nothing in it may raise: the page says what is damaged."""
    run = folder / "shown" / "run"
    shutil.copytree(training, run, ignore=lambda _, names: [name for name in names if name.endswith(".safetensors")])
    write_run(run / "samples" / "step-00000020", make_record(), make_frames(), trace=make_trace(), run_id="sample")

    def show(path: Path) -> None:
        (opened,) = Trainings([path]).runs().values()
        look = opened.look()
        facts_of(look, time.time())
        notice_of(look, time.time())
        for chart in CHARTS:
            figure = chart.draw(look.lines)
            if figure is not None:
                figure.to_json()
        for step in look.samples:
            for sample in opened.sample_ids(step):
                try:
                    opened.sample(step, sample).trace()
                except RunError:
                    continue

    return of_files("a training's folder", run, "*", show)._replace(documented=())
