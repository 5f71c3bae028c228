"""Train a branch on the embedded backbone from clips of the synthetic worlds, publish it and use it. Minutes on a CPU.

    python examples/train_a_branch.py --out runs/my-branch

``prophy train --recipe tiny`` does the same with more clips and steps; docs/training.md says how on Wan2.1.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import prophy
from prophy.training.base_config import base_config_of
from prophy.training.bases import base_of, open_backbone, open_examples
from prophy.training.log import read_lines
from prophy.training.publish import publish
from prophy.training.recipes import recipe_named
from prophy.training.trainer import Running, train


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/my-branch"), help="folder (default: runs/my-branch)")
    parser.add_argument("--clips", type=int, default=96, help="clips to learn from (default: 96)")
    parser.add_argument("--steps", type=int, default=60, help="training steps (default: 60)")
    arguments = parser.parse_args(argv)

    # 1. A recipe is a frozen value: eqs. 3-6 with the paper's weights, at the embedded model's size.
    recipe = replace(recipe_named("tiny"), steps=arguments.steps)

    # 2. The backbone, frozen, and clips with exact masks, encoded by its own autoencoder and text encoder.
    base = base_of(recipe, None)
    transformer, objective = open_backbone(base, recipe)
    examples = open_examples(arguments.out / "cache", base, arguments.clips)

    # 3. Run this again after a stop: the training resumes where its last checkpoint was.
    run, branch = arguments.out / "training", arguments.out / "branch"
    running = Running(log_every=max(1, arguments.steps // 10), workers=0)
    config = base_config_of(base)
    train(recipe, transformer, objective, examples, run, name="tiny", base=base, base_config=config, running=running)
    losses = [line["losses"] for line in read_lines(run) if line["kind"] == "train"]
    for name in losses[0]:
        print(f"{name}: {losses[0][name]:.4f} at first, {losses[-1][name]:.4f} at last")

    # 4. A folder with a model card, which load() and the app open beside the base.
    publish(run, branch)
    pipeline = prophy.load(branch=str(branch))
    made = prophy.generate(pipeline, prophy.GenerationSettings("a red ball bounces on the floor", seed=3, steps=10))
    print(made.save(arguments.out / "runs").path)


if __name__ == "__main__":
    main()
