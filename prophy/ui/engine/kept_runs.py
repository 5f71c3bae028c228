"""The runs that an app shows: the shipped ones, and those in its folder, each its owner's."""

from __future__ import annotations

import logging
from hmac import compare_digest
from pathlib import Path

from prophy.assets import gallery_dir
from prophy.runs.keep import RunLimits, sweep_runs
from prophy.runs.owner import OwnerError, read_owner, runs_of, unowned_runs
from prophy.runs.record import RunError
from prophy.runs.store import Run, delete_run, find_run, list_runs, run_folder
from prophy.ui.engine.errors import EngineError, for_visitors
from prophy.ui.engine.visitors import OWN_RUNS_KEPT

logger = logging.getLogger(__name__)


class KeptRuns:
    """Lists, opens and deletes them.

    Args:
        folder: that new runs go to.
        gallery: the folder of shipped runs; default: the repository's. It may be missing.
        last: whether ``folder`` outlives this process's machine; a Space without storage of its own is made anew.
        list_earlier: show every visitor the runs that ``folder`` already holds, and let them delete those that nobody
            owns: right on one's own machine, wrong on a public one.
        limits: of what stays in ``folder``.
    """

    def __init__(
        self,
        folder: str | Path,
        gallery: str | Path | None = None,
        *,
        last: bool = True,
        list_earlier: bool = True,
        limits: RunLimits = RunLimits(),
    ) -> None:
        self.folder, self.last, self._limits = Path(folder), last, limits
        self.sweep()
        self._gallery_dir = gallery_dir() if gallery is None else Path(gallery)
        self._lists_earlier = list_earlier
        self._earlier = tuple(run.id for run in list_runs(self.folder)) if list_earlier else ()

    def gallery(self) -> list[Run]:
        """The shipped runs, by name."""
        return sorted(list_runs(self._gallery_dir), key=lambda run: run.id)

    def history(self, owner: str) -> list[Run]:
        """A visitor's runs, newest first: the last ones that they own, and the earlier ones where they are listed, with
        those that came into the folder since and that nobody owns."""
        wanted = [*runs_of(self.folder, owner, OWN_RUNS_KEPT), *self._earlier]
        if self._lists_earlier:  # made meanwhile by the command line
            wanted += unowned_runs(self.folder, OWN_RUNS_KEPT)
        runs = []
        for run_id in dict.fromkeys(wanted):
            try:
                runs.append(find_run(self.folder, run_id))
            except RunError as error:
                logger.info("not in the history: %s", error)
        return sorted(runs, key=lambda run: (run.record.created, run.id), reverse=True)

    def sweep(self) -> None:
        """Delete the runs that are beyond what is kept, and what killed writes left."""
        sweep_runs(self.folder, self._limits)

    def delete(self, run_id: str, owner: str) -> None:
        """Delete a run of the runs folder; shipped ones stay.

        Args:
            run_id: of the run; it is in every shared link, so it proves nothing.
            owner: who asks.

        Raises:
            EngineError: there is none of this id, or it is another's. A run that nobody owns can be deleted where
                earlier ones are listed: on one's own machine.
        """
        try:
            its_owner = read_owner(run_folder(self.folder, run_id))
            may = self._lists_earlier if its_owner is None else compare_digest(its_owner, owner)
            if not may:
                raise EngineError("this run belongs to another visitor: only the browser that made it can delete it")
            delete_run(self.folder, run_id)
        except (RunError, OwnerError, OSError) as error:
            raise EngineError(for_visitors(error)) from None

    def find(self, run_id: str) -> Run:
        """A run of the gallery or of the runs folder, by its id, which may come from anyone.

        Raises:
            EngineError: there is none, or it is damaged.
        """
        try:
            return find_run(self._gallery_dir, run_id)
        except RunError:
            pass
        try:
            run_folder(self.folder, run_id)  # its message names no folder of this machine
            return find_run(self.folder, run_id)
        except RunError as error:
            raise EngineError(str(error)) from None
