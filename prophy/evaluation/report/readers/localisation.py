"""What is shown of localisation."""

from __future__ import annotations

from prophy.evaluation.report.plots import bars, lines
from prophy.evaluation.report.table import Body, Headline, Table, listed, number, row, share, signed, verdict
from prophy.evaluation.results.localisation import (
    IMAGE_FREE,
    UNIFORM,
    GeneratedLocalisationResult,
    LocalisationLevel,
    LocalisationResult,
)
from prophy.phenomena import by_id

_MEASURES = ("token AP (95 %)", "energy / area", "pointing", "two told apart")


def localisation(result: LocalisationResult) -> Body:
    """Every map at every noise level, the branch's own by phenomenon, and what the routers do."""
    levels, maps = result.levels, tuple(result.levels[0].scores)
    noises = [level.noise for level in levels]
    at_noise = tuple(f"noise {noise}" for noise in noises)
    precision = Table(
        "",
        ("token AP (95 %)", *at_noise),
        tuple(row(name, *(number(level.scores[name].ap) for level in levels)) for name in maps),
    )
    pooled = Table(
        "",
        ("token AP, pooled", *at_noise),
        tuple(row(name, *(number(level.scores[name].ap_pooled) for level in levels)) for name in maps),
    )
    own = maps[0]
    by_phenomenon = Table(
        f"{own}, token AP by phenomenon",
        ("phenomenon", *map(str, noises)),
        tuple(
            row(by_id(p).name, *(number(level.scores[own].ap_by_phenomenon.get(p)) for level in levels))
            for p in levels[0].scores[own].ap_by_phenomenon
        ),
    )
    use = Table(
        "use of the experts",
        ("expert", "of all assignments", "of first choices"),
        tuple(
            row(str(e), share(a), share(b))
            for e, (a, b) in enumerate(zip(result.use.topk, result.use.top1, strict=True))
        ),
    )
    semantic = Table(
        "semantic router, AUC",
        ("phenomenon", "linear reading", "coarse head as it is"),
        tuple(
            row(by_id(p).name, number(v), number(result.semantic_auc_head.get(p)))
            for p, v in result.semantic_auc.items()
        ),
    )
    return Body(
        "Localisation: does the routing find the physics",
        (precision, *map(_every_measure, levels), by_phenomenon, use, semantic),
        (
            lines("Token average precision", "AP", "noise", noises, precision),
            lines("The same, pooled over clips", "AP, pooled", "noise", noises, pooled),
            bars(f"{own}, by phenomenon", "token AP", by_phenomenon, at_noise),
            bars("Use of the experts", "%", use),
        ),
        _headlines(levels, own),
        notes=(f"{result.clips} clips of the {result.split} split; experts matched on {result.matched_on}",),
    )


def _every_measure(level: LocalisationLevel) -> Table:
    rows = tuple(
        row(name, number(s.ap), number(s.energy), number(s.pointing), number(s.apart), number(s.ap_pooled))
        for name, s in level.scores.items()
    )
    return Table(f"noise {level.noise}", ("map", *_MEASURES, "AP pooled"), rows)


def _headlines(levels: tuple[LocalisationLevel, ...], own: str) -> tuple[Headline, ...]:
    middle, last = min(levels, key=lambda level: abs(level.noise - 0.5)), levels[-1]
    controls = {name: number(middle.scores[name].ap) for name in (IMAGE_FREE, UNIFORM) if name in middle.scores}
    cell = number(middle.scores[own].ap)
    heads = [Headline(f"localisation, token AP at noise {middle.noise}", cell, listed(controls))]
    if (gain := last.map_minus_image_free) is not None:
        label = f"map minus image-free control, token AP at noise {last.noise}"
        heads.append(Headline(label, signed(gain), verdict(gain)))
    return tuple(heads)


def generated_localisation(result: GeneratedLocalisationResult) -> Body:
    """Every map at the last step beside the baselines, then step by step."""
    steps, maps = result.steps, tuple(result.steps[0].scores)
    at_the_end = Table(
        "last step",
        ("map", *_MEASURES),
        tuple(
            row(name, number(s.ap), number(s.energy), number(s.pointing), number(s.apart))
            for name, s in result.at_the_end.items()
        ),
    )
    by_step = Table(
        "",
        ("token AP (95 %)", *maps),
        tuple(row(f"step {step.step}", *(number(step.scores[name].ap) for name in maps)) for step in steps),
    )
    places = [step.step for step in steps]
    return Body(
        "Localisation while a video is being made, masks by the segmenter",
        (at_the_end, by_step),
        (lines("Token average precision by denoising step", "AP", "step", places, by_step.transposed()),),
        (
            Headline(
                f"localisation in generated clips, token AP at step {steps[-1].step}",
                number(steps[-1].scores[maps[0]].ap),
                listed({name: number(score.ap) for name, score in result.baselines.items()}),
            ),
        ),
        notes=(
            (
                f"{result.clips} clips; the segmenter's token AP on held-out renders is ",
                number(result.segmenter_ap),
                f"; it sees nothing of {result.without_tokens} of {result.asked} phenomena asked for",
            ),
        ),
    )
