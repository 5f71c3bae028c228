"""``prophy evaluate looks-judge | looks``: what stands where in a clip, in which colours, and who says so."""

from __future__ import annotations

import argparse
from pathlib import Path

from prophy.evaluation.flags import (
    add_batch,
    add_grammar,
    add_judge_recipe,
    add_measure,
    add_phenomena,
    add_stage,
    add_steps,
    add_work,
    gated,
    opened,
)
from prophy.flags import none_or_more, only_set, whole


def add_looks(commands: argparse._SubParsersAction) -> None:
    """Add the judge of looks and what it measures to ``prophy evaluate``."""
    judge = commands.add_parser("looks-judge", help="train the judge that looks are measured with")
    add_work(judge)
    judge.add_argument("--model", type=Path, help="also measure it on renders decoded by this folder's autoencoder")
    judge.add_argument("--decoded-clips", type=whole, default=64, help="of each kind, for --model (default: 64)")
    add_judge_recipe(judge, "training renders, half of them lawful", "held-out renders of each kind")
    add_stage(judge)
    add_phenomena(judge)
    judge.set_defaults(run=_looks_judge)

    looks = add_measure(commands, "looks", "held-out prompts: do the clips show the asked things, colours, places")
    looks.add_argument("--prompts", type=whole, default=400, help="how many (default: 400)")
    looks.add_argument(
        "--renders", type=none_or_more, default=128, help="real renders of the first of them, read too (default: 128)"
    )
    add_batch(looks)
    add_steps(looks)
    add_grammar(looks)
    looks.set_defaults(run=_looks)


def _looks_judge(arguments: argparse.Namespace) -> None:
    from prophy.data.jobs import scope_of
    from prophy.evaluation.judges.looks import GATE, train_looks_judge
    from prophy.evaluation.measures.autoencoder import open_autoencoder
    from prophy.evaluation.report.readers import as_text
    from prophy.evaluation.results.looks import LooksRecipe
    from prophy.training.devices import chosen_device

    given = only_set(arguments, "clips", "test_clips", "steps", "size", "fps")
    recipe = LooksRecipe(phenomena=scope_of(arguments.phenomena), **given)
    device = chosen_device(arguments.device)
    vae = None if arguments.model is None else open_autoencoder(arguments.model, device)
    result = train_looks_judge(
        arguments.work, recipe, vae, arguments.decoded_clips, device=device, minutes=arguments.minutes
    )
    print(as_text(result))
    for kind, error in result.errors.items():
        print(f"{kind}: exact {gated(error.exact.value, GATE)}")


def _looks(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.judges.looks import looks_recipe
    from prophy.evaluation.measures.looks import GATE, evaluate_looks
    from prophy.evaluation.prompts import held_out
    from prophy.evaluation.report.readers import as_text

    recipe, kinds = looks_recipe(arguments.work), (held_out.USUAL, held_out.NEW, held_out.PAIR)
    pipeline = opened(arguments)
    seen = held_out.training_captions(grammar=arguments.grammar, phenomena=recipe.phenomena)
    prompts = held_out.held_out_prompts(
        arguments.prompts, seen, recipe.phenomena, grammar=arguments.grammar, kinds=kinds
    )
    result = evaluate_looks(
        pipeline,
        arguments.work,
        prompts,
        arguments.batch,
        arguments.steps,
        renders=arguments.renders,
        grammar=arguments.grammar,
    )
    print(as_text(result))
    print(f"things, colours and places: {gated(result.scores[result.column].all.value, GATE)}")
