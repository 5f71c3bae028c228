"""What is shown of recognition."""

from __future__ import annotations

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.table import Body, Headline, Table, row, share
from prophy.evaluation.results.recognition import RecognitionResult
from prophy.phenomena import by_id

_NONE = share(None)


def recognition(result: RecognitionResult) -> Body:
    """By phenomenon, then over all prompts."""
    score = result.score
    by_phenomenon = Table(
        "",
        ("recognised", "share (95 %)", "where not asked for"),
        tuple(row(by_id(p).name, share(recall), share(score.unasked.get(p))) for p, recall in score.recall.items()),
    )
    table = by_phenomenon.with_rows(
        row("one phenomenon asked for", share(score.single), _NONE),
        row("two, both found", share(score.both), _NONE),
        row("exactly what was asked for", share(score.exact), _NONE),
        *(row(f"{wording}: everything asked for", share(v), _NONE) for wording, v in score.by_wording.items()),
    )
    branch = "with the branch" if result.branch else "backbone alone"
    exact = ("the classifier is exact on ", share(result.classifier_exact), " of held-out real renders")
    return Body(
        f"Recognition of held-out prompts, {branch}",
        (table,),
        (bars("Recognised, by phenomenon", "%", by_phenomenon, ("where asked for", "where not asked for")),),
        (
            Headline(f"one phenomenon recognised, {branch}", share(score.single), exact),
            Headline(f"two recognised, {branch}", share(score.both), exact),
        ),
        notes=(f"{len(result.verdicts)} prompts, {result.steps} steps, guidance {result.guidance}", exact),
    )
