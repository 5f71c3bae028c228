"""The commands that measure causes: what the branch changes, and which of its experts does.

prophy evaluate budget | selectivity | dose | specificity | preference | discrimination
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from prophy.evaluation.columns import add_columns, columns_of
from prophy.evaluation.flags import (
    add_batch,
    add_measure,
    add_steps,
    add_worlds,
    opened,
    opened_in_float32,
    worlds_of,
)
from prophy.evaluation.report.readers import as_text
from prophy.flags import none_or_more, seeds, weights_of, whole
from prophy.generation.pipelines import load
from prophy.worlds import WorldSet


def add_causes(commands: argparse._SubParsersAction) -> None:
    """Add every measure of causes to ``prophy evaluate``."""
    budget = add_measure(
        commands, "budget", "the branch off and on: laws fixed and regressed, pixels changed, and where"
    )
    add_batch(budget)
    add_steps(budget)
    add_worlds(budget)
    budget.add_argument("--clips", type=whole, default=64, help="of each split (default: 64)")
    budget.add_argument(
        "--split", action="append", help="test, combinations or parameters; repeat (default: test and combinations)"
    )
    _add_areas(budget)
    budget.set_defaults(run=_budget)

    selectivity = add_measure(
        commands, "selectivity", "one expert muted: its own law broken, the others' kept, beside two controls"
    )
    add_batch(selectivity)
    add_steps(selectivity)
    add_worlds(selectivity)
    selectivity.add_argument("--two", type=none_or_more, default=64, help="clips of two phenomena (default: 64)")
    selectivity.add_argument("--one", type=none_or_more, default=32, help="clips of one phenomenon (default: 32)")
    selectivity.add_argument(
        "--every-expert",
        action="store_true",
        help="also mute the experts of phenomena that a clip does not show: the full matrix, many times as long",
    )
    selectivity.add_argument("--split", default="test", help="of the worlds (default: test)")
    selectivity.add_argument("--no-pictures", action="store_true", help="leave the contact sheets out")
    _add_areas(selectivity)
    selectivity.set_defaults(run=_selectivity)

    dose = add_measure(commands, "dose", "the branch at strength 0, ½, 1 and 2, and one expert alone")
    add_batch(dose)
    add_steps(dose)
    add_worlds(dose)
    dose.add_argument("--clips", type=whole, default=64, help="how many (default: 64)")
    dose.add_argument("--split", default="test", help="of the worlds (default: test)")
    dose.add_argument(
        "--strength", type=float, action="append", metavar="X", help="0 to 4, 0 among them; repeat (default: 0 0.5 1 2)"
    )
    dose.set_defaults(run=_dose)

    specificity = add_measure(
        commands, "specificity", "at one fixed noisy latent: where muting an expert changes the prediction"
    )
    add_batch(specificity, 16, "clips at a time")
    add_worlds(specificity)
    specificity.add_argument("--clips", type=whole, default=64, help="held-out clips (default: 64)")
    specificity.set_defaults(run=_specificity)

    preference = add_measure(
        commands, "preference", "of a valid and an impossible clip, which the model finds likelier"
    )
    add_batch(preference, 4, "noise levels at a time")
    add_worlds(preference)
    preference.add_argument("--clips", type=whole, default=8, help="pairs of each law of the worlds (default: 8)")
    preference.add_argument("--split", default="test", help="of the worlds (default: test)")
    preference.add_argument(
        "--pairs",
        type=Path,
        metavar="DIR",
        help="instead of the worlds: a benchmark's folder, SCENARIO_videos/SUBGROUP/valid_00.mp4 and so on",
    )
    preference.add_argument(
        "--captions", type=Path, metavar="JSON", help="of --pairs: an object of a caption for each scenario"
    )
    add_columns(preference)
    preference.add_argument("--seed", type=seeds, default=0, help="of the noise (default: 0)")
    preference.set_defaults(run=_preference)

    discrimination = add_measure(
        commands, "discrimination", "the phenomenon map against all phenomena, absent ones too"
    )
    add_batch(discrimination, 16, "clips at a time")
    add_worlds(discrimination)
    discrimination.add_argument("--clips", type=whole, default=256, help="held-out clips (default: 256)")
    discrimination.set_defaults(run=_discrimination)


def _add_areas(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--areas",
        choices=("place", "segmenter"),
        default="place",
        help="where a phenomenon is: the part of the stage that the prompt gives it, or what the segmenter trained in "
        "--work sees (default: place)",
    )


def _budget(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.budget import SPLITS, evaluate_budget

    result = evaluate_budget(
        opened(arguments),
        arguments.work,
        clips=arguments.clips,
        batch=arguments.batch,
        steps=arguments.steps,
        splits=tuple(arguments.split or SPLITS),
        areas=arguments.areas,
        worlds=worlds_of(arguments),
    )
    print(as_text(result))


def _selectivity(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.selectivity import evaluate_selectivity

    result = evaluate_selectivity(
        opened(arguments),
        arguments.work,
        two=arguments.two,
        one=arguments.one,
        every_expert=arguments.every_expert,
        batch=arguments.batch,
        steps=arguments.steps,
        areas=arguments.areas,
        pictures=not arguments.no_pictures,
        worlds=worlds_of(arguments, arguments.split),
    )
    print(as_text(result))


def _dose(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.dose import STRENGTHS, evaluate_dose

    result = evaluate_dose(
        opened(arguments),
        arguments.work,
        clips=arguments.clips,
        batch=arguments.batch,
        steps=arguments.steps,
        strengths=tuple(arguments.strength or STRENGTHS),
        worlds=worlds_of(arguments, arguments.split),
    )
    print(as_text(result))


def _specificity(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.specificity import evaluate_specificity

    pipeline, worlds = opened_in_float32(arguments), worlds_of(arguments)
    result = evaluate_specificity(pipeline, arguments.work, arguments.clips, arguments.batch, worlds=worlds)
    print(as_text(result))


def _discrimination(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.measures.discrimination import evaluate_discrimination

    pipeline, worlds = opened_in_float32(arguments), worlds_of(arguments)
    result = evaluate_discrimination(pipeline, arguments.work, arguments.clips, arguments.batch, worlds=worlds)
    print(as_text(result))


def _preference(arguments: argparse.Namespace) -> None:
    from prophy.catalogue.limits import ClipSize
    from prophy.evaluation.benchmarks.pairs import read_pair_folder
    from prophy.evaluation.measures.causes import expert_names
    from prophy.evaluation.measures.preference import Pairs, PreferenceColumn, evaluate_preference
    from prophy.evaluation.measures.world_pairs import law_pairs
    from prophy.evaluation.results.preference import BASE, MUTED, PROPHY

    pairs: Pairs
    worlds = None
    if arguments.pairs is not None:
        if arguments.captions is None or arguments.size is None:
            raise ValueError("--pairs needs --captions, and --size of the clips that the model makes")
        if arguments.phenomena is not None or arguments.grammar != WorldSet.grammar:
            raise ValueError("--phenomena and --grammar change nothing in --pairs: leave them out")
        folder = read_pair_folder(arguments.pairs, arguments.captions)
        pairs = partial(folder.pairs, ClipSize.parse(arguments.size))
        source, name = arguments.pairs.name, f"preference-{arguments.pairs.name}"
    else:
        if arguments.captions is not None:
            raise ValueError("--captions belong to --pairs: the worlds have captions of their own")
        worlds = worlds_of(arguments, arguments.split)
        pairs = partial(law_pairs, worlds, arguments.clips)
        source, name = f"worlds, {arguments.split} split", None
    columns = {BASE: PreferenceColumn(partial(load, arguments.model, branch=False, **weights_of(arguments)))}
    for called, open_column in columns_of(arguments, (BASE, PROPHY, MUTED)).items():
        columns[called] = PreferenceColumn(open_column)
    if not arguments.no_branch and opened(arguments).attachment is not None:
        columns[PROPHY] = PreferenceColumn(partial(opened, arguments))
        if worlds is not None:  # of a benchmark's pair nobody knows the phenomenon
            named = partial(expert_names, work=arguments.work, phenomena=worlds.phenomena)
            columns[MUTED] = PreferenceColumn(partial(opened, arguments), named)
    result = evaluate_preference(
        columns,
        pairs,
        source,
        arguments.work,
        batch=arguments.batch,
        seed=arguments.seed,
        name=name,
        worlds=worlds,
    )
    print(as_text(result))
