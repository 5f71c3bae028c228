"""What is shown of the data and the judges."""

from __future__ import annotations

from prophy.evaluation.report.table import Body, Table, count, row
from prophy.evaluation.results.data import DataResult


def data(result: DataResult) -> Body:
    """Every cache of clips and every trained judge, by its hash."""
    rows = [row(one.name, one.split, count(one.clips), one.sha256) for one in result.sets]
    rows += [row(name, "trained judge", "–", digest) for name, digest in result.judges_sha256.items()]
    return Body("Data and judges", (Table("", ("folder or file", "split", "clips", "SHA-256"), tuple(rows)),))
