"""Results: what every evaluation finds, as frozen dataclasses that save and load themselves (no torch).

One module a subject says what a result's fields are; its JSON has the same ones. A new result is a dataclass here, a
function of it in :mod:`prophy.evaluation.report.readers`, and a line in that package's ``KINDS``.
"""

from prophy.evaluation.results.documents import write_arrays, write_json
from prophy.evaluation.results.interval import Interval, Measured
from prophy.evaluation.results.result import FOLDER, Provenance, Result, as_typed, running_command, stamp

__all__ = [
    "FOLDER",
    "Interval",
    "Measured",
    "Provenance",
    "Result",
    "as_typed",
    "running_command",
    "stamp",
    "write_arrays",
    "write_json",
]
