"""Work in processes of its own, which generations do not wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from prophy.ui.engine.aside import Aside
from prophy.ui.engine.errors import EngineError

KILLED = """
import os, signal
from prophy.ui.engine.aside import Aside
print(Aside(1).do(os.getpid), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def aside() -> Aside:
    return Aside(1)


def test_work_is_done_in_one_process_that_steps_back(aside: Aside):
    process = aside.do(os.getpid)
    assert process != os.getpid()
    assert aside.do(os.getpid) == process
    assert os.getpriority(os.PRIO_PROCESS, process) > os.getpriority(os.PRIO_PROCESS, 0)


def test_what_the_work_raises_comes_out(aside: Aside):
    with pytest.raises(ZeroDivisionError):
        aside.do(divmod, 1, 0)
    assert aside.do(divmod, 7, 2) == (3, 1)


def test_a_process_that_is_killed_is_said_in_a_line_and_replaced(aside: Aside):
    process = aside.do(os.getpid)
    with pytest.raises(EngineError, match="ended before it was done: ask again"):
        aside.do(os.kill, process, signal.SIGKILL)
    assert aside.do(os.getpid) not in (process, os.getpid())


def test_arguments_that_are_nested_without_end_are_refused(aside: Aside):
    nested: list = []
    for _ in range(sys.getrecursionlimit()):
        nested = [nested]
    with pytest.raises(EngineError, match="nested too deeply"):
        aside.do(len, nested)
    assert aside.do(len, [nested[:0]]) == 1


def test_an_interrupt_at_a_terminal_leaves_it_to_the_app(aside: Aside):
    assert aside.do(signal.getsignal, signal.SIGINT) == signal.SIG_IGN


def test_an_app_that_is_killed_leaves_no_process_behind():
    """Whatever it leaves holds its output open."""
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert int(done.stdout) > 0
