"""Every kind of result: which class it is, what it answers, and the function that makes tables and plots of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Generic, TypeVar

from prophy.evaluation.report.format import in_words
from prophy.evaluation.report.readers.ablation import ablation
from prophy.evaluation.report.readers.annotation import annotation
from prophy.evaluation.report.readers.autoencoder import autoencoder
from prophy.evaluation.report.readers.benchmarks import vbench, videophy2, videophy2_comparison
from prophy.evaluation.report.readers.causes import budget, dose, selectivity, specificity
from prophy.evaluation.report.readers.data import data
from prophy.evaluation.report.readers.discrimination import discrimination
from prophy.evaluation.report.readers.figures import correlation, expert_maps, inversion
from prophy.evaluation.report.readers.flow_loss import flow_loss
from prophy.evaluation.report.readers.judges import recogniser, segmenter
from prophy.evaluation.report.readers.laws import laws
from prophy.evaluation.report.readers.localisation import generated_localisation, localisation
from prophy.evaluation.report.readers.looks import looks, looks_judge
from prophy.evaluation.report.readers.preference import preference
from prophy.evaluation.report.readers.recognition import recognition
from prophy.evaluation.report.table import Body
from prophy.evaluation.results import Result
from prophy.evaluation.results.ablation import AblationResult
from prophy.evaluation.results.annotation import AnnotationResult
from prophy.evaluation.results.autoencoder import AutoencoderResult
from prophy.evaluation.results.causes import CausalBudgetResult, DoseResult, SelectivityResult, SpecificityResult
from prophy.evaluation.results.data import DataResult
from prophy.evaluation.results.discrimination import DiscriminationResult
from prophy.evaluation.results.figures import CorrelationResult, ExpertMapsResult, InversionResult
from prophy.evaluation.results.flow_loss import FlowResult
from prophy.evaluation.results.judges import RecogniserResult, SegmenterResult
from prophy.evaluation.results.laws import LawsResult
from prophy.evaluation.results.localisation import GeneratedLocalisationResult, LocalisationResult
from prophy.evaluation.results.looks import LooksJudgeResult, LooksResult
from prophy.evaluation.results.preference import PreferenceResult
from prophy.evaluation.results.recognition import RecognitionResult
from prophy.evaluation.results.result import provenance
from prophy.evaluation.results.vbench import VBenchResult
from prophy.evaluation.results.videophy2 import VideoPhy2Comparison, VideoPhy2Result
from prophy.files import read_regular
from prophy.schema import MOST_BYTES

AnyResult = TypeVar("AnyResult", bound=Result)


@dataclass(frozen=True)
class Kind(Generic[AnyResult]):
    """One kind of result.

    Attributes:
        result: its class, which knows the command that measures it.
        read: what is shown of one.
        asks: what it answers, in a few words.
        has_tables: whether its headline tables belong in docs/RESULTS.md.
        in_readme: whether its first number belongs in the README.
    """

    result: type[AnyResult]
    read: Callable[[AnyResult], Body]
    asks: str
    has_tables: bool = False
    in_readme: bool = False


_ALL = (
    Kind(CausalBudgetResult, budget, "what does the branch change", has_tables=True, in_readme=True),
    Kind(
        SelectivityResult,
        selectivity,
        "does muting an expert break its own law and no other",
        has_tables=True,
        in_readme=True,
    ),
    Kind(DoseResult, dose, "how much of the branch do the laws need", has_tables=True),
    Kind(SpecificityResult, specificity, "where does muting an expert change the predicted clip", has_tables=True),
    Kind(PreferenceResult, preference, "which of two clips does the model find likelier", has_tables=True),
    Kind(LawsResult, laws, "do the clips obey the physics they show", has_tables=True, in_readme=True),
    Kind(AutoencoderResult, autoencoder, "what does the autoencoder keep of the laws", has_tables=True),
    Kind(RecognitionResult, recognition, "do the clips show what was asked for", has_tables=True, in_readme=True),
    Kind(RecogniserResult, recogniser, "how wrong is the classifier itself"),
    Kind(LooksResult, looks, "do the clips look as asked for", has_tables=True),
    Kind(LooksJudgeResult, looks_judge, "how wrong is the judge of looks itself"),
    Kind(LocalisationResult, localisation, "does the routing find the physics", has_tables=True, in_readme=True),
    Kind(DiscriminationResult, discrimination, "does the map tell all phenomena apart", has_tables=True),
    Kind(
        GeneratedLocalisationResult,
        generated_localisation,
        "does it while a video is being made",
        has_tables=True,
        in_readme=True,
    ),
    Kind(SegmenterResult, segmenter, "how wrong is the segmenter itself"),
    Kind(FlowResult, flow_loss, "does the branch lower the flow loss", has_tables=True, in_readme=True),
    Kind(CorrelationResult, correlation, "figure 6: do related phenomena get related logits"),
    Kind(ExpertMapsResult, expert_maps, "figure 7: where does each expert act"),
    Kind(InversionResult, inversion, "figure 8: what does inversion change", in_readme=True),
    Kind(AnnotationResult, annotation, "do annotated targets find the physics"),
    Kind(AblationResult, ablation, "what does each part add", has_tables=True),
    Kind(VideoPhy2Result, videophy2, "VideoPhy2", has_tables=True),
    Kind(VideoPhy2Comparison, videophy2_comparison, "VideoPhy2, two runs compared", has_tables=True),
    Kind(VBenchResult, vbench, "VBench quality", has_tables=True),
    Kind(DataResult, data, "which data and judges"),
)

#: by the name that its results' files say, in the report's order
KINDS: dict[str, Kind[Any]] = {kind.result.kind: kind for kind in _ALL}

#: The files of release 0.1.0 do not say their kind; their names do: the longest of these that fits.
_NAMES: dict[str, str] = {
    **{pattern: kind for kind in KINDS for pattern in (kind, f"{kind}-*")},
    "videophy2-*-minus-*": VideoPhy2Comparison.kind,
}


def kind_of(path: Path) -> str:
    """Which of :data:`KINDS` a file is, by its name.

    Raises:
        ValueError: none of them.
    """
    fitting = [pattern for pattern in _NAMES if fnmatchcase(path.stem, pattern)]
    if not fitting:
        raise ValueError(f"{path} is no result that this release knows: move it out of the folder")
    return _NAMES[max(fitting, key=len)]


def read_result(path: Path) -> Result:
    """A result of any kind: the one that its file says, else the one that its name says.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or of no known kind.
    """
    raw = read_regular(path, MOST_BYTES)
    try:
        said = provenance(raw).kind
    except ValueError:
        said = None  # damaged: the class that its name says will say how
    kind: type[Result] = KINDS[said if said in KINDS else kind_of(path)].result
    return kind.from_json(raw, path)


def body_of(result: Result) -> Body:
    """What is shown of a result."""
    return KINDS[result.kind].read(result)


def as_text(result: Result) -> str:
    """What is shown of a result, as lines of text for a terminal."""
    return in_words(body_of(result))
