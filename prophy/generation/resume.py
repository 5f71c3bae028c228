"""Many clips, a batch at a time, each kept as soon as it is made: a killed process loses one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from tqdm import tqdm

from prophy.generation.checks import check_all
from prophy.generation.generate import Generation, batches, generate
from prophy.generation.identity import branch_is_on, computation_of, model_hash
from prophy.generation.settings import GenerationError, GenerationSettings
from prophy.runs.record import RunError
from prophy.runs.store import Run, delete_run, read_run

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Made = TypeVar("Made")
Kept = TypeVar("Kept")
Made_contra = TypeVar("Made_contra", contravariant=True)
Kept_co = TypeVar("Kept_co", covariant=True)


class ClipStore(Protocol[Made_contra, Kept_co]):
    """Where clips are kept, each under a name, whole or not at all."""

    def read(self, name: str, settings: GenerationSettings) -> Kept_co | None:
        """What is kept under a name; None where nothing is, or where it is damaged and must be made again.

        Raises:
            ValueError: it was made with other settings or by another model; one line that names the cure.
        """

    def write(self, name: str, made: Made_contra) -> Kept_co:
        """Keep a clip under a name that :meth:`read` gave None for."""


def resumable(
    pipeline: DiffusionPipeline,
    wanted: Mapping[str, GenerationSettings],
    store: ClipStore[Made, Kept],
    *,
    batch: int = 1,
    make: Callable[[DiffusionPipeline, Sequence[GenerationSettings]], Sequence[Made]] = generate,  # type: ignore[assignment]  # Made is Generation then
    title: str = "clips",
) -> dict[str, Kept]:
    """Every clip by its name: what the store holds is read, the rest is made and stored.

    Args:
        pipeline: that makes them, the branch on or off as it shall be.
        wanted: settings by name. Those that cannot be made are refused before the first is made.
        store: where they are kept.
        batch: clips at a time.
        make: clips of one batch, which differ in prompt, seed and frames per second only.
        title: of the progress bar.

    Raises:
        GenerationError: a clip that the pipeline cannot make; the message begins with its prompt.
        ValueError: the store holds a clip that was made otherwise.
    """
    kept = {name: found for name, one in wanted.items() if (found := store.read(name, one)) is not None}
    missing = [name for name in wanted if name not in kept]
    settings = [wanted[name] for name in missing]
    check_all(pipeline, settings)
    with tqdm(total=len(wanted), initial=len(kept), desc=title, unit="clip") as bar:
        for places in batches(settings, batch):
            for i, made in zip(places, make(pipeline, [settings[i] for i in places]), strict=True):
                kept[missing[i]] = store.write(missing[i], made)
            bar.update(len(places))
    return {name: kept[name] for name in wanted}


class RunFolder:
    """A :class:`ClipStore` of run directories, each with its video, routing and contact sheet; names are run ids.

    Args:
        root: the folder of runs.
        pipeline: that makes them.
        sheet: False leaves the contact sheets out.
    """

    def __init__(self, root: Path, pipeline: DiffusionPipeline, *, sheet: bool = True) -> None:
        self._root, self._sheet = Path(root), sheet
        self._model_sha256, self._branch, self._pipeline = model_hash(pipeline), branch_is_on(pipeline), pipeline

    def read(self, name: str, settings: GenerationSettings) -> Run | None:
        if not (self._root / name).exists():
            return None
        try:
            run = read_run(self._root / name)
        except RunError:
            delete_run(self._root, name)
            return None
        routed = self._branch if settings.schedule.is_every_pass else run.routing_path is not None
        made_by = run.record.model_sha256, run.routing_path is not None
        if GenerationSettings.from_record(run.record) != settings or made_by != (self._model_sha256, routed):
            raise GenerationError(
                f"{self._root} holds the run {name}, made with other settings or by another model: delete it or give "
                "another folder"
            )
        if differences := computation_of(self._pipeline, settings).differences(run.record.computation):
            raise GenerationError(
                f"{self._root} holds the run {name}, and this one would be made {differences[0]}: delete it or give "
                "another folder"
            )
        return run

    def write(self, name: str, made: Generation) -> Run:
        return made.save(self._root, name, sheet=self._sheet)
