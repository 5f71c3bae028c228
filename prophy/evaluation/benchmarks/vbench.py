"""VBench's quality score, from the result files that the ``vbench`` package writes in an environment of its own::

    prophy evaluate vbench runs/vbench/*_eval_results.json --work runs/tiny

The score is the mean of seven dimensions, normalised and weighted as VBench does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from prophy.data.tables import read_text
from prophy.evaluation.results.vbench import VBenchResult
from prophy.schema import parsed

#: dimension -> (lowest, highest, weight): normalised to (x - lowest) / (highest - lowest)
QUALITY: dict[str, tuple[float, float, float]] = {
    "subject_consistency": (0.1462, 1.0, 1.0),
    "background_consistency": (0.2615, 1.0, 1.0),
    "temporal_flickering": (0.6293, 1.0, 1.0),
    "motion_smoothness": (0.706, 0.9975, 1.0),
    "aesthetic_quality": (0.0, 1.0, 1.0),
    "imaging_quality": (0.0, 1.0, 1.0),
    "dynamic_degree": (0.0, 1.0, 0.5),
}


def read_vbench(paths: Sequence[Path]) -> VBenchResult:
    """Read one file of all seven dimensions, or several that hold them between them.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no VBench result, or a dimension that is missing, given twice, not a number or out of range.
    """
    raw: dict[str, float] = {}
    counts: dict[str, int] = {}
    for path in map(Path, paths):
        for dimension, (value, count) in _read(path).items():
            if dimension in raw:
                raise ValueError(f"{dimension} stands in two of the files: give each dimension once")
            raw[dimension], counts[dimension] = value, count
    if missing := [dimension for dimension in QUALITY if dimension not in raw]:
        raise ValueError(f"VBench did not measure {', '.join(missing)}: the quality score needs all seven dimensions")
    normalised = {name: (raw[name] - low) / (high - low) for name, (low, high, _) in QUALITY.items()}
    weights = {name: weight for name, (_, _, weight) in QUALITY.items()}
    quality = sum(normalised[name] * weight for name, weight in weights.items()) / sum(weights.values())
    return VBenchResult(quality, raw, normalised, max(counts.values()), counts)


def evaluate_vbench(paths: Sequence[Path], work: Path) -> VBenchResult:
    """As :func:`read_vbench`; writes ``vbench.json`` under ``work/evaluation``."""
    return read_vbench(paths).save(work)


def _read(path: Path) -> dict[str, tuple[float, int]]:
    """Value and number of videos of each dimension, of a file of ``{dimension: [value, [one entry a video]]}``."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give VBench's *_eval_results.json")
    try:
        document = parsed(read_text(path))
        found = {name: (float(entry[0]), len(entry[1])) for name, entry in document.items() if name in QUALITY}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"{path} is not a result of VBench ({error}): give its *_eval_results.json") from error
    for name, (value, count) in found.items():
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise ValueError(f"{path}: {name} is {value}, not a share from 0 to 1: measure it again")
        if not count:
            raise ValueError(f"{path}: {name} was measured on no video: measure it again")
    return found
