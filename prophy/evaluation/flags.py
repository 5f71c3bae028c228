"""Flags that several evaluations share, and the model that they name."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.flags import branch_of, weights_of, whole
from prophy.generation.pipelines import load


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


def add_steps(parser: argparse.ArgumentParser) -> None:
    """``--steps`` of generation."""
    parser.add_argument("--steps", type=whole, help="denoising steps, for trying out (default: the app's)")


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``, which :func:`prophy.training.devices.chosen_device` reads."""
    parser.add_argument("--device", help="cpu, cuda or another accelerator (default: one, if there is one)")


def opened(arguments: argparse.Namespace) -> ProPhyPipeline:
    """The model and the branch that the flags name."""
    return load(arguments.model, branch=branch_of(arguments), **weights_of(arguments))


def opened_in_float32(arguments: argparse.Namespace) -> ProPhyPipeline:
    """The same, on an accelerator too: a cache of the worlds is known by its autoencoder's weights, unrounded."""
    return load(arguments.model, branch=branch_of(arguments), dtype=torch.float32, **weights_of(arguments))


def gated(value: float, least: float) -> str:
    """A share, and whether it passes its gate."""
    return f"{100 * value:.1f} % (gate {100 * least:.0f} %: {'passed' if value >= least else 'NOT passed'})"
