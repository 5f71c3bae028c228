"""The ablation in miniature: every row trained with equal compute from the same start, measured alike, in a table.

    prophy evaluate ablation-runs --work runs/ablation --caches runs/tiny --steps 150 --seeds 3

One seed of every row comes before the next seed, so that a table of all rows is there early. What is finished is never
done again: a training goes on from its checkpoint, generated clips from the last one kept, and each result is a file.
``work/ROW-SEED`` is a run's folder, as ``prophy train`` makes it, with its ``published/`` model and ``evaluation/``;
``work/backbone`` holds what was measured on the model that all of them began with.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.evaluation.judges.recogniser import load_recogniser
from prophy.evaluation.measures.ablation import SPLIT, evaluate_ablation
from prophy.evaluation.measures.flow_loss import HELD_OUT, flow_levels, held_out_cache, predictor
from prophy.evaluation.measures.laws import asked_clips, evaluate_laws, prompts_of
from prophy.evaluation.measures.localisation import evaluate_localisation
from prophy.evaluation.measures.recognition import evaluate_recognition
from prophy.evaluation.results import FOLDER, write_json
from prophy.evaluation.results.ablation import AblationResult
from prophy.evaluation.results.flow_loss import FlowResult
from prophy.evaluation.results.laws import BACKBONE
from prophy.generation.identity import computation_of, model_hash
from prophy.generation.pipelines import load
from prophy.runs.computation import Computation
from prophy.schema import AtLeastOne, BatchSize, DenoisingSteps, ShareBelowOne, check_fields, read_object
from prophy.training.about import RUN_FILE, About
from prophy.training.base_config import base_config_of
from prophy.training.bases import base_of, open_backbone, open_examples
from prophy.training.checkpoints import saved_in
from prophy.training.progress import TrainingStopped
from prophy.training.publish import publish
from prophy.training.recipe import Recipe, difference
from prophy.training.run_folder import CHECKPOINT
from prophy.training.trainer import Running, train
from prophy.training.world_examples import WorldExamples

log = logging.getLogger(__name__)

#: the paper's rows and the opposite of its last one, by their recipes
ROWS = (
    "tiny_lora",
    "tiny_lora_reb",
    "tiny_lora_seb",
    "tiny",
    "tiny_bce",
    "tiny_align_only",
    "tiny_balance_only",
)

SETTINGS_FILE, PUBLISHED = "settings.json", "published"


@dataclass(frozen=True)
class AblationSettings:
    """What all runs of one table have in common besides their base model.

    Attributes:
        worlds: clips to train on.
        clips: generated for laws and recognition, the same ones for both.
        latents: held-out clips for localisation and flow loss, and as many to match experts on.
        noises: levels of these two.
        batch: clips at a time; the noise depends on it.
        denoising_steps: None: the app's.
    """

    worlds: AtLeastOne = 4000
    clips: AtLeastOne = 24
    latents: AtLeastOne = 64
    noises: tuple[ShareBelowOne, ...] = (0.2, 0.5, 0.8)
    batch: BatchSize = 8
    denoising_steps: DenoisingSteps | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class AblationRun:
    """One cell of the plan: a row's recipe with one seed; no recipe: the model that all begin with."""

    row: str
    folder: Path
    recipe: Recipe | None

    @property
    def results(self) -> dict[str, Path]:
        """The file of each evaluation; without a branch there is nothing to localise."""
        branch = self.recipe is not None and self.recipe.branch is not None
        names = {"laws": "laws", "recognition": "recognition" if branch else "recognition-no-branch", "flow": "flow"}
        names |= {"localisation": "localisation"} if branch else {}
        return {evaluation: self.folder / FOLDER / f"{name}.json" for evaluation, name in names.items()}

    @property
    def finished(self) -> bool:
        return all(path.is_file() for path in self.results.values())


def plan_runs(rows: Mapping[str, Recipe], seeds: int, work: Path) -> tuple[AblationRun, ...]:
    """All runs in their order: the untrained model, then every row with seed 0, then with seed 1, and so on.

    Raises:
        ValueError: no rows or seeds, rows of unequal compute or of different bases.
    """
    if not rows or seeds < 1:
        raise ValueError("nothing to compare: give at least one row and one seed")
    if BACKBONE in rows:
        raise ValueError(f"{BACKBONE!r} is the row of the untrained model: give yours another name")
    for what in ("steps", "batch", "base"):
        if len({getattr(recipe, what) for recipe in rows.values()}) > 1:
            raise ValueError(f"the rows differ in {what}: a table compares what had equal compute from the same start")
    trained = [
        AblationRun(row, Path(work) / f"{row}-{seed}", replace(recipe, seed=seed))
        for seed in range(seeds)
        for row, recipe in rows.items()
    ]
    return (AblationRun(BACKBONE, Path(work) / BACKBONE, None), *trained)


def run_ablation(
    runs: Sequence[AblationRun],
    work: Path,
    caches: Path,
    model: str | None = None,
    settings: AblationSettings | None = None,
    running: Running | None = None,
) -> AblationResult:
    """Do what is left to do, and write the table after every run: ``ablation.json`` under ``work/evaluation``.

    Args:
        runs: from :func:`plan_runs`.
        work: folder of the table.
        caches: folder of encoded clips, made on first use, and of the trained recogniser.
        model: base model's folder; default: as the recipes say.
        settings: what is measured, and how.
        running: of the trainings.

    Raises:
        ValueError: ``work`` holds runs that were made otherwise; before anything is done.
        FileNotFoundError: there is no model, or no recogniser.
        TrainingStopped: a training was told to stop, or cannot go on; what is finished stays.
    """
    work, caches, settings = Path(work), Path(caches), settings or AblationSettings()
    base = base_of(next(run.recipe for run in runs if run.recipe is not None), model)
    load_recogniser(caches)  # before hours are spent
    untrained = load(base, branch=False)
    _refuse_others(runs, work, settings, model_hash(untrained), computation_of(untrained))
    left = [run for run in runs if not run.finished]
    seconds: list[float] = []
    for number, run in enumerate(left, len(runs) - len(left) + 1):
        remaining = f", about {mean(seconds) * (len(runs) - number + 1) / 60:.0f} min left" if seconds else ""
        log.info("run %d of %d: %s%s", number, len(runs), run.folder.name, remaining)
        since = time.monotonic()
        if run.recipe is None:
            _measure(run, untrained, untrained, caches, settings)
        else:
            _train(run, run.recipe, base, caches, settings, running or Running(checkpoint_every=50))
            _measure(run, load(base, branch=run.folder / PUBLISHED), untrained, caches, settings)
            seconds.append(time.monotonic() - since)
        _table(runs, work)
    return _table(runs, work)


def _table(runs: Sequence[AblationRun], work: Path) -> AblationResult:
    return evaluate_ablation([(run.row, run.folder) for run in runs if run.finished], work)


def _train(
    run: AblationRun, recipe: Recipe, base: str, caches: Path, settings: AblationSettings, running: Running
) -> None:
    """Train to the recipe's last step and publish, unless that has been done."""
    if (run.folder / PUBLISHED).is_dir():
        return
    examples = open_examples(caches / "latents", base, settings.worlds)
    transformer, objective = open_backbone(base, recipe)
    config = base_config_of(base)
    train(
        recipe,
        transformer,
        objective,
        examples,
        run.folder,
        name=run.row,
        base=base,
        base_config=config,
        running=running,
    )
    saved = saved_in(run.folder / CHECKPOINT)
    if (step := 0 if saved is None else saved.step) < recipe.steps:
        raise TrainingStopped(f"{run.folder} was told to stop at step {step}: run the same command again to go on")
    publish(run.folder, run.folder / PUBLISHED)


def _measure(
    run: AblationRun,
    pipeline: ProPhyPipeline,
    untrained: ProPhyPipeline,
    caches: Path,
    settings: AblationSettings,
) -> None:
    """Every evaluation whose result is not there yet."""
    clips, batch, steps = settings.clips, settings.batch, settings.denoising_steps
    asked = prompts_of(asked_clips(SPLIT, clips))
    evaluations = {
        "laws": lambda: evaluate_laws({run.row: lambda: pipeline}, run.folder, clips, batch, steps, (SPLIT,)),
        "recognition": lambda: evaluate_recognition(pipeline, run.folder, asked, batch, steps, judge=caches),
        "flow": lambda: _measure_flow(run, pipeline, untrained, caches, settings),
        "localisation": lambda: evaluate_localisation(
            pipeline,
            run.folder,
            clips=settings.latents,
            match_clips=settings.latents,
            batch=batch,
            caches=caches,
            noises=settings.noises,
            slow_baselines=False,
        ),
    }
    for evaluation, path in run.results.items():
        if not path.is_file():
            evaluations[evaluation]()


def _measure_flow(
    run: AblationRun,
    pipeline: ProPhyPipeline,
    untrained: ProPhyPipeline,
    caches: Path,
    settings: AblationSettings,
) -> None:
    """The run's flow loss beside that of the untrained model, on the same noisy clips."""
    models = {BACKBONE: predictor(untrained, untrained.transformer, branch=False)}
    if run.recipe is not None:
        models[run.row] = predictor(pipeline, pipeline.transformer, branch=True)
    cache = held_out_cache(untrained, caches, settings.latents)
    levels = flow_levels(models, WorldExamples(cache, untrained.text_encoder), settings.noises, settings.batch)
    FlowResult(levels, len(cache), HELD_OUT, model_hash(pipeline), None).write(run.results["flow"])


def _refuse_others(
    runs: Sequence[AblationRun], work: Path, settings: AblationSettings, model_sha256: str, computation: Computation
) -> None:
    """Keep what the runs have in common; refuse a folder whose runs have other things in common."""
    path = work / SETTINGS_FILE
    wanted = json.loads(json.dumps({**asdict(settings), "model_sha256": model_sha256}))
    changed = {}
    if path.is_file():
        known = read_object(path, "choose another --work")
        was = Computation.from_json(known.get("computation", {}))  # releases before noted none: not compared
        if said := computation.differences(was):
            raise ValueError(
                f"{work} holds the runs of another ablation, and more would be measured {', '.join(said)}: choose "
                "another --work"
            )
        computation = was if was.is_known else computation
        changed = {name: (known.get(name), value) for name, value in wanted.items() if known.get(name) != value}
    for run in runs:
        if run.recipe is not None and (run.folder / RUN_FILE).is_file():
            learnt = Recipe.from_record(About.read(run.folder).recipe)
            changed |= {f"{run.folder.name}: {name}": pair for name, pair in difference(learnt, run.recipe).items()}
    if changed:
        listed = ", ".join(f"{name} was {was!r}, now {now!r}" for name, (was, now) in changed.items())
        raise ValueError(f"{work} holds the runs of another ablation ({listed}): choose another --work")
    write_json(path, {**wanted, "computation": computation.to_json()})
