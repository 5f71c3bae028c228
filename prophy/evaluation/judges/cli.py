"""``prophy evaluate recogniser | segmenter``: trains the judges of clips."""

from __future__ import annotations

import argparse
from pathlib import Path

from prophy.data.jobs import scope_of
from prophy.evaluation.flags import add_judge_recipe, add_phenomena, add_stage, add_work, gated
from prophy.evaluation.report.readers import as_text
from prophy.flags import only_set, whole
from prophy.generation.pipelines import load


def add_judges(commands: argparse._SubParsersAction) -> None:
    """Add the trainings of the judges to ``prophy evaluate``."""
    recogniser = commands.add_parser("recogniser", help="train the classifier that recognition is measured with")
    add_work(recogniser)
    recogniser.add_argument("--model", type=Path, help="also measure it on renders decoded by this model's autoencoder")
    add_judge_recipe(recogniser)
    add_stage(recogniser)
    recogniser.set_defaults(run=_recogniser)

    segmenter = commands.add_parser("segmenter", help="train what says where a generated clip shows each phenomenon")
    add_work(segmenter)
    add_judge_recipe(segmenter)
    add_stage(segmenter)
    add_phenomena(segmenter)
    segmenter.add_argument("--cell", type=whole, help="pixels on a side of a token (default: 8)")
    segmenter.set_defaults(run=_segmenter)


def _recogniser(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.judges.recogniser import GATE, train_recogniser
    from prophy.evaluation.results.judges import RecogniserRecipe
    from prophy.training.devices import chosen_device

    vae = None if arguments.model is None else load(arguments.model).vae
    recipe = RecogniserRecipe(**only_set(arguments, "clips", "test_clips", "steps", "size", "fps"))
    device = chosen_device(arguments.device)
    result = train_recogniser(arguments.work, recipe, vae, device=device, minutes=arguments.minutes)
    print(as_text(result))
    print(f"exact: {gated(result.exact, GATE)}")


def _segmenter(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.judges.segmenter import train_segmenter
    from prophy.evaluation.results.judges import SegmenterRecipe
    from prophy.training.devices import chosen_device

    given = only_set(arguments, "clips", "test_clips", "steps", "size", "fps", "cell")
    recipe = SegmenterRecipe(phenomena=scope_of(arguments.phenomena), **given)
    device = chosen_device(arguments.device)
    print(as_text(train_segmenter(arguments.work, recipe, device, arguments.minutes)))
