"""The parts, in the order of what they are worth, and the process that each of them has to itself."""

from __future__ import annotations

import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from gpu_parts.results import Machine, Outcome, Row, State

#: Measures on a device (by its name), at full size or small; yields rows as they are found.
Measure = Callable[[Any, bool], Iterator[Row]]

_PRELOADED = ["gpu_parts.preload"]
_LEAST_SHARE = 0.4  # of its time that a part must have left to begin


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        name: a letter of the issue's list, and what it is of.
        module: of this package that measures.
        function: there.
        seconds: it may take.
        arguments: of the function, before device and size.
    """

    name: str
    module: str
    function: str
    seconds: float
    arguments: tuple[str, ...] = ()

    def measure(self) -> Measure:
        """Import what measures; it imports torch."""
        module = __import__(f"gpu_parts.{self.module}", fromlist=[self.function])
        return partial(getattr(module, self.function), *self.arguments)


PARTS = (
    Part("a memory, wan2.1-1.3b", "memory", "measure_profiles", 150, ("wan2.1-1.3b",)),
    Part("b steps, wan2.1-1.3b", "steps", "measure_steps", 30, ("wan2.1-1.3b",)),
    Part("c experts", "experts", "measure_experts", 40),
    Part("e training, wan_1_3b", "training", "measure_training", 50),
    Part("f embedded model", "embedded", "measure_embedded", 45),
    Part("a transfers", "memory", "measure_transfers", 15),
    Part("d variants, wan2.1-1.3b", "steps", "measure_variants", 75, ("wan2.1-1.3b",)),
    Part("b steps, wan2.1-14b", "steps", "measure_steps", 45, ("wan2.1-14b",)),
    Part("a memory, wan2.1-14b", "memory", "measure_profiles", 200, ("wan2.1-14b",)),
    Part("b steps, cogvideox-5b", "steps", "measure_steps", 35, ("cogvideox-5b",)),
    Part("a memory, cogvideox-5b", "memory", "measure_profiles", 150, ("cogvideox-5b",)),
    Part("b steps, wan2.2-ti2v-5b", "steps", "measure_steps", 35, ("wan2.2-ti2v-5b",)),
    Part("a memory, wan2.2-ti2v-5b", "memory", "measure_profiles", 200, ("wan2.2-ti2v-5b",)),
)


class Processes:
    """Starts each measurement in a process of its own, so that a cut, a shortage or a hang loses that one.

    They are forked from one that has imported everything heavy and touched no card. Where an import touches one all the
    same, which a fork does not survive, each starts anew and imports for itself.
    """

    def __init__(self) -> None:
        self._context: multiprocessing.context.BaseContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def machine(self, device: str, small: bool) -> Machine | str:
        """The machine, or why it cannot measure, in one line."""
        outcome, machine = self._run("machine", partial(_describe, device, small), 120)
        if machine is None and not device.startswith("cpu"):
            self._context = multiprocessing.get_context("spawn")
            outcome, machine = self._run("machine", partial(_describe, device, small), 120)
        return machine or outcome.reason

    def run(self, part: Part, device: str, small: bool, seconds: float) -> Outcome:
        """Measure a part for so long at most."""
        return self._run(part.name, partial(_measure, part, device, small), seconds)[0]

    def _run(self, name: str, work: Callable[[Connection], None], seconds: float) -> tuple[Outcome, Machine | None]:
        here, there = self._context.Pipe(duplex=False)
        process = self._context.Process(target=work, args=(there,))
        began, rows, machine = time.monotonic(), [], None
        process.start()
        there.close()
        state, reason = State.CUT, f"it took longer than {seconds:.0f} s"
        try:
            while here.poll(max(0.0, began + seconds - time.monotonic())):
                message = here.recv()
                if isinstance(message, Outcome):
                    state, reason = message.state, message.reason
                    break
                if isinstance(message, Machine):
                    machine = message
                else:
                    rows.append(message)
        except EOFError:
            process.join(5)
            state, reason = State.FAILED, f"its process died (exit code {process.exitcode}): out of memory, or a crash"
        finally:
            if state is State.CUT:
                process.kill()
            process.join(10)
            process.kill()
            process.join()
            here.close()
        return Outcome(name, state, reason, round(time.monotonic() - began, 1), tuple(rows)), machine


def _describe(device: str, small: bool, there: Connection) -> None:
    import torch

    from gpu_parts.machine import describe_machine

    _told(there, "machine", lambda: iter([describe_machine(torch.device(device), small)]))


def _measure(part: Part, device: str, small: bool, there: Connection) -> None:
    import diffusers
    import torch
    import transformers

    from gpu_parts.machine import check_card

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()

    def rows() -> Iterator[Row]:
        where = torch.device(device)
        if where.type == "cuda":
            check_card(where)
            torch.cuda.set_device(where.index or 0)
        yield from part.measure()(where, small)

    _told(there, part.name, rows)


def _told(there: Connection, name: str, rows: Callable[[], Iterator[Row | Machine]]) -> None:
    """Send what is found as it is found, and how it ended last."""
    import torch

    from gpu_parts.machine import Unfit

    state, reason = State.DONE, ""
    try:
        for row in rows():
            there.send(row)
    except Unfit as error:
        state, reason = State.SKIPPED, str(error)
    except (torch.OutOfMemoryError, MemoryError) as error:
        state, reason = State.SKIPPED, f"too little memory ({_line(error)})"
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        state, reason = State.FAILED, f"{type(error).__name__}: {_line(error)}"
    with suppress(BrokenPipeError):
        there.send(Outcome(name, state, reason))


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def room_for(part: Part, left: float) -> float:
    """Seconds that a part may take with so many left; 0: too few to begin."""
    return min(part.seconds, left) if left >= _LEAST_SHARE * part.seconds else 0.0
