"""What is shown of looks, and of the error of the judge of looks."""

from __future__ import annotations

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.table import Body, Headline, Table, listed, row, share
from prophy.evaluation.results.looks import LooksJudgeResult, LooksResult
from prophy.phenomena import by_id


def looks_judge(result: LooksJudgeResult) -> Body:
    """By question, then by scene; a column for each kind of renders."""
    kinds = tuple(result.errors)
    questions = tuple(next(iter(result.errors.values())).by_question)
    table = Table(
        "",
        ("read right", *kinds),
        (
            row("everything of a clip", *(share(error.exact) for error in result.errors.values())),
            *(row(each, *(share(error.by_question[each]) for error in result.errors.values())) for each in questions),
        ),
    )
    scenes = dict.fromkeys(scene for error in result.errors.values() for scene in error.by_scene)
    by_scene = Table(
        "events read exactly",
        ("scene", *kinds),
        tuple(row(scene, *(share(e.by_scene.get(scene)) for e in result.errors.values())) for scene in scenes),
    )
    return Body(
        "The judge of looks: its own error, on held-out renders",
        (table, by_scene),
        (bars("Events read exactly", "%", by_scene),),
        notes=(
            ("of two balls one hidden, one counted: ", share(result.lone)),
            ("nothing found on empty stages: ", share(result.empty)),
        ),
    )


def looks(result: LooksResult) -> Body:
    """The model beside real renders, then by phenomenon."""
    columns = tuple(result.scores)
    scores = tuple(result.scores.values())
    wordings = tuple(dict.fromkeys(kind for score in scores for kind in score.by_wording))
    table = Table(
        "",
        ("clips that show", *columns),
        (
            row("the asked things", *(share(score.things) for score in scores)),
            row("in the asked colours", *(share(score.colours) for score in scores)),
            row("at the asked places", *(share(score.places) for score in scores)),
            row("all three", *(share(score.all) for score in scores)),
            row("all three and nothing besides", *(share(score.exactly) for score in scores)),
            row("all three, one phenomenon asked for", *(share(score.single) for score in scores)),
            row("all three, two", *(share(score.both) for score in scores)),
            *(row(f"all three, {kind}", *(share(score.by_wording.get(kind)) for score in scores)) for kind in wordings),
        ),
    )
    asked = tuple(dict.fromkeys(name for score in scores for name in score.by_phenomenon))
    by_phenomenon = Table(
        "events shown where and as they are asked for",
        ("phenomenon", *columns),
        tuple(row(by_id(name).name, *(share(score.by_phenomenon.get(name)) for score in scores)) for name in asked),
    )
    own = result.scores[result.column]
    beside = listed({name: share(score.all) for name, score in result.scores.items() if name != result.column})
    judge = listed({f"the judge reads everything right of {kind}:": share(v) for kind, v in result.judge.items()})
    return Body(
        f"Looks of held-out prompts, {result.column}",
        (table, by_phenomenon),
        (bars("Shown as asked for", "%", by_phenomenon),),
        (Headline(f"things, colours and places as asked, {result.column}", share(own.all), beside or judge),),
        notes=(
            f"{len(result.verdicts)} prompts of the grammar {result.grammar}, {result.steps} steps, guidance "
            f"{result.guidance}, {result.size} at {result.fps} a second",
            judge,
        ),
    )
