"""``prophy evaluate looks-judge | looks``: what stands where in a clip, in which colours, and who says so."""

from __future__ import annotations

import argparse
from pathlib import Path

from prophy.assets import default_model
from prophy.flags import add_model, branch_of, none_or_more, only_set, time_limit, weights_of, whole
from prophy.generation.pipelines import load
from prophy.worlds.language import GRAMMARS


def add_looks(commands: argparse._SubParsersAction) -> None:
    """Add the judge of looks and what it measures to ``prophy evaluate``."""
    judge = commands.add_parser("looks-judge", help="train the judge that looks are measured with")
    _add_work(judge)
    judge.add_argument("--model", type=Path, help="also measure it on renders decoded by this folder's autoencoder")
    judge.add_argument("--clips", type=whole, help="training renders, half of them lawful (default: the recipe's)")
    judge.add_argument("--test-clips", type=whole, help="held-out renders of each kind (default: the recipe's)")
    judge.add_argument("--decoded-clips", type=whole, default=64, help="of each kind, for --model (default: 64)")
    judge.add_argument("--steps", type=whole, help="training steps (default: the recipe's)")
    judge.add_argument("--minutes", type=time_limit, help="stop, resumable, after this long")
    judge.add_argument("--device", help="cpu, cuda or another accelerator (default: one, if there is one)")
    judge.add_argument("--size", metavar="WxHxF", help="of the clips (default: 64x64x17)")
    judge.add_argument("--fps", type=whole, help="frames a second of the clips (default: 8)")
    add_phenomena(judge)
    judge.set_defaults(run=_looks_judge)

    looks = commands.add_parser("looks", help="held-out prompts: do the clips show the asked things, colours, places")
    add_model(looks, branch=True)
    _add_work(looks)
    looks.add_argument("--prompts", type=whole, default=400, help="how many (default: 400)")
    looks.add_argument(
        "--renders", type=none_or_more, default=128, help="real renders of the first of them, read too (default: 128)"
    )
    looks.add_argument("--batch", type=whole, default=8, help="prompts at a time (default: 8)")
    looks.add_argument("--steps", type=whole, help="denoising steps, for trying out (default: the app's)")
    add_grammar(looks)
    looks.set_defaults(run=_looks)


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


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tiny"), help="folder of caches and results (default: runs/tiny)"
    )
    parser.set_defaults(measures=True)


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
        met = "passed" if error.exact.value >= GATE else "NOT passed"
        print(f"{kind}: exact {100 * error.exact.value:.1f} % (gate {100 * GATE:.0f} %: {met})")


def _looks(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.judges.looks import looks_recipe
    from prophy.evaluation.measures.looks import GATE, evaluate_looks
    from prophy.evaluation.prompts import held_out
    from prophy.evaluation.report.readers import as_text

    recipe, kinds = looks_recipe(arguments.work), (held_out.USUAL, held_out.NEW, held_out.PAIR)
    pipeline = load(arguments.model or default_model(), branch=branch_of(arguments), **weights_of(arguments))
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
    share = result.scores[result.column].all.value
    met = "passed" if share >= GATE else "NOT passed"
    print(f"things, colours and places: {100 * share:.1f} % (gate {100 * GATE:.0f} %: {met})")
