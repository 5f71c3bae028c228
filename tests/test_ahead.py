"""Clips made ahead by other processes: in order, and never more than may wait."""

import os
import time
from collections.abc import Iterator

import pytest

from prophy.data.ahead import made_ahead


def square_or_fail(number: int) -> tuple[int, int]:
    if number == 13:
        raise ValueError("thirteen")
    return number * number, os.getpid()


def test_what_was_made_comes_in_order_from_other_processes_and_few_wait():
    begun = []

    def tasks() -> Iterator[int]:
        for number in range(1, 11):
            begun.append(number)
            yield number

    made = made_ahead(square_or_fail, tasks(), workers=2, ahead=2)
    first, process = next(made)
    time.sleep(0.2)
    assert (first, len(begun)) == (1, 4), "two for each process"
    assert process != os.getpid()
    assert [value for value, _ in made] == [number * number for number in range(2, 11)]


def test_what_fails_is_raised_where_it_is_used():
    made = made_ahead(square_or_fail, range(12, 15), workers=1)
    assert next(made)[0] == 144
    with pytest.raises(ValueError, match="thirteen"):
        next(made)
