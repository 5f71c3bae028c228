"""Flags that several evaluations share, and the model that they name."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.data.jobs import scope_of, stage_of
from prophy.flags import add_model, branch_of, time_limit, weights_of, whole
from prophy.generation.pipelines import load
from prophy.worlds import WorldSet
from prophy.worlds.language import GRAMMARS


def add_measure(commands: argparse._SubParsersAction, name: str, what: str) -> argparse.ArgumentParser:
    """A command that measures a model: ``--model``, the branch beside it, and ``--work``."""
    parser = commands.add_parser(name, help=what)
    add_model(parser, branch=True)
    add_work(parser)
    return parser


def add_work(parser: argparse.ArgumentParser) -> None:
    """``--work``, whose folder must take files before anything is measured."""
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tiny"), help="folder of caches and results (default: runs/tiny)"
    )
    parser.set_defaults(measures=True)


def add_stage(parser: argparse.ArgumentParser) -> None:
    """``--size`` and ``--fps``, which :func:`prophy.data.jobs.stage_of` reads."""
    parser.add_argument("--size", metavar="WxHxF", help="of the clips (default: 64x64x17)")
    parser.add_argument("--fps", type=whole, help="frames a second of the clips (default: 8)")


def add_phenomena(parser: argparse.ArgumentParser) -> None:
    """``--phenomena``, which :func:`prophy.data.jobs.scope_of` reads."""
    parser.add_argument(
        "--phenomena", metavar="IDS", help="all, or ids with commas between (default: those of the embedded model)"
    )


def add_grammar(parser: argparse.ArgumentParser) -> None:
    """``--grammar``."""
    parser.add_argument(
        "--grammar", choices=GRAMMARS, default="first", help="the words of prompts (default: the embedded model's)"
    )


def add_worlds(parser: argparse.ArgumentParser) -> None:
    """``--size``, ``--fps``, ``--phenomena`` and ``--grammar``, which :func:`worlds_of` reads."""
    add_stage(parser)
    add_phenomena(parser)
    add_grammar(parser)


def worlds_of(arguments: argparse.Namespace, split: str = "test") -> WorldSet:
    """The clips of the worlds that the flags mean.

    Raises:
        ValueError: a size, a rate, a phenomenon or a split that the worlds do not have.
    """
    stage = stage_of(arguments.size, arguments.fps)
    return WorldSet(scope_of(arguments.phenomena), split, stage, grammar=arguments.grammar)


def add_steps(parser: argparse.ArgumentParser) -> None:
    """``--steps`` of generation."""
    parser.add_argument("--steps", type=whole, help="denoising steps, for trying out (default: the app's)")


def add_batch(parser: argparse.ArgumentParser, default: int = 8, what: str = "prompts at a time") -> None:
    """``--batch``, which is of ``what``."""
    parser.add_argument("--batch", type=whole, default=default, help=f"{what} (default: {default})")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``, which :func:`prophy.training.devices.chosen_device` reads."""
    parser.add_argument("--device", help="cpu, cuda or another accelerator (default: one, if there is one)")


def add_judge_recipe(
    parser: argparse.ArgumentParser, clips: str = "training renders", test_clips: str = "held-out renders"
) -> None:
    """What the training of a judge can be told besides its stage: how much, how long and where.

    Args:
        parser: of the command.
        clips, test_clips: what is counted, in words.
    """
    parser.add_argument("--clips", type=whole, help=f"{clips} (default: the recipe's)")
    parser.add_argument("--test-clips", type=whole, help=f"{test_clips} (default: the recipe's)")
    parser.add_argument("--steps", type=whole, help="training steps (default: the recipe's)")
    parser.add_argument("--minutes", type=time_limit, help="stop, resumable, after this long")
    add_device(parser)


def opened(arguments: argparse.Namespace) -> ProPhyPipeline:
    """The model and the branch that the flags name."""
    return load(arguments.model, branch=branch_of(arguments), **weights_of(arguments))


def opened_in_float32(arguments: argparse.Namespace) -> ProPhyPipeline:
    """The same, on an accelerator too: a cache of the worlds is known by its autoencoder's weights, unrounded."""
    return load(arguments.model, branch=branch_of(arguments), dtype=torch.float32, **weights_of(arguments))


def gated(value: float, least: float) -> str:
    """A share, and whether it passes its gate."""
    return f"{100 * value:.1f} % (gate {100 * least:.0f} %: {'passed' if value >= least else 'NOT passed'})"
