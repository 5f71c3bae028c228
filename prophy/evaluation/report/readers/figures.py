"""What is shown of the paper's figures 6, 7 and 8."""

from __future__ import annotations

from prophy.evaluation.report.plots import bars, heatmap
from prophy.evaluation.report.table import Body, Cell, Headline, Table, listed, number, row, share, signed
from prophy.evaluation.results import Interval
from prophy.evaluation.results.figures import INVERTED, CorrelationResult, ExpertMapsResult, InversionResult
from prophy.phenomena import by_id


def correlation(result: CorrelationResult) -> Body:
    """Pairs of phenomena by their logits and by their labels."""
    names = [by_id(p).name for p in result.phenomena]
    pairs = tuple(
        row(f"{names[i]} – {names[j]}", signed(result.logits[i][j], 2), signed(result.labels[i][j], 2))
        for i in range(len(names))
        for j in range(i)
    )
    logits = [[cell.value for cell in row] for row in result.logits]
    return Body(
        "Figure 6: correlation of semantic logits between phenomena",
        (Table("", ("phenomena", "semantic logits (95 %)", "label vectors"), pairs),),
        (heatmap("semantic logits", names, logits), heatmap("label vectors", names, result.labels)),
        (
            Headline(
                "figure 6: do the semantic logits follow the labels",
                signed(result.agreement, 2),
                "near 1, they only repeat the labels",
                of=f"{result.prompts} prompts",
            ),
        ),
        notes=(
            (
                f"{result.prompts} prompts; Pearson correlation of the two tables ",
                number(result.agreement, 2),
                ": near 1, the router only repeats what the labels say already",
            ),
        ),
    )


def expert_maps(result: ExpertMapsResult) -> Body:
    """Each expert's share of the tokens, frame by frame, one table a prompt."""
    tables = []
    for prompt, frames in zip(result.prompts, result.shares, strict=True):
        rows = tuple(row(f"expert {e}", *(share(frame[e]) for frame in frames)) for e in range(len(frames[0])))
        header = ("share of tokens", *(f"latent frame {t}" for t in range(len(frames))))
        tables.append(Table(prompt, header, rows))
    return Body("Figure 7: where each refinement expert acts", tuple(tables), pictures=result.pictures, headline=0)


def inversion(result: InversionResult) -> Body:
    """What each change of the router does to pixels and routing."""
    pixels = Table("", ("change", "change"), tuple(row(name, _levels(v)) for name, v in result.pixels.items()))
    routing = Table("", ("change", "change"), tuple(row(name, number(v)) for name, v in result.routing.items()))
    rows = [row(name, _levels(v), number(result.routing[name])) for name, v in result.pixels.items()]
    rows += [
        row(f"inverted minus {name}", signed(v.scaled(_LEVELS)), number(None))
        for name, v in result.inverted_minus.items()
    ]
    inverted = _levels(result.pixels[INVERTED])
    beside = listed({name: _levels(v) for name, v in result.pixels.items() if name != INVERTED})
    if inverted.number is not None and inverted.number < 1:
        beside = (*beside, "; less than one level: nothing to see")
    return Body(
        "Figure 8: expert inversion",
        (Table("", ("change", "pixels, levels of 255 (95 %)", "routing, bits (95 %)"), tuple(rows)),),
        (
            bars("Change of the clip", "levels of 255", pixels),
            bars("Change of the routing", "bits", routing),
        ),
        (Headline("figure 8: inversion changes a pixel by, of 255 levels", inverted, beside),),
        notes=(f"{len(result.prompts)} prompts; the controls change every token's logits as much, at random",),
        pictures=result.pictures,
    )


_LEVELS = 255


def _levels(pixels: Interval) -> Cell:
    """A difference of pixels from 0 to 1, in levels of 255."""
    return number(pixels.scaled(_LEVELS))
