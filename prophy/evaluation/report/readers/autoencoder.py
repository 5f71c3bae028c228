"""What is shown of the autoencoder."""

from __future__ import annotations

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.table import Body, Headline, Table, listed, number, row, share
from prophy.evaluation.results.autoencoder import AutoencoderResult


def autoencoder(result: AutoencoderResult) -> Body:
    """Every split, then law by law."""
    rows = tuple(
        row(split, share(one.real), share(one.kept), share(one.lost), number(one.psnr, 1))
        for split, one in result.splits.items()
    )
    means = Table("", ("split", "real renders", "laws kept", "scenes without a track", "PSNR, dB"), rows)
    kept = Table("", ("split", "laws kept"), tuple(row(s, share(one.kept)) for s, one in result.splits.items()))
    by_law = tuple(
        Table(f"{split}: laws kept", ("law", "kept"), tuple(row(law, share(v)) for law, v in one.by_law.items()))
        for split, one in result.splits.items()
    )
    first, *others = result.splits
    beside = listed({split: share(result.splits[split].kept) for split in others})
    return Body(
        "Autoencoder: what real renders keep",
        (means, *by_law),
        (bars("Laws kept, mean over laws", "%", kept),),
        pictures=result.pictures,
        notes=(f"{result.clips} clips of each split, {result.size} at {result.fps} a second",),
        headlines=(Headline(f"laws kept by the autoencoder, {first}", share(result.splits[first].kept), beside),),
    )
