"""Legends: every colour is there, no text leaves the strip, and a video can carry it."""

import numpy as np
import pytest

from prophy.runs.legend import Entry, strip

SQUARES = [Entry("expert 0: 70 %", ((230, 159, 0),)), Entry("expert 1: 30 %", ((0, 114, 178),))]


def columns_with_ink(image: np.ndarray) -> np.ndarray:
    return np.flatnonzero((image < 128).any(axis=(0, 2)))


@pytest.mark.parametrize("width", [64, 127, 512, 833])
@pytest.mark.parametrize("text_px", [9, 13, 28])
def test_a_strip_is_as_wide_as_asked_and_its_height_is_even(width: int, text_px: int):
    image = strip(SQUARES, width, headings=("a red ball bounces",), text_px=text_px)
    assert image.dtype == np.uint8
    assert image.shape[1:] == (width, 3)
    assert image.shape[0] % 2 == 0
    for entry in SQUARES:
        assert (image == entry.colours[0]).all(axis=2).sum() >= (text_px - 2) ** 2


def test_a_bar_runs_through_its_colours_from_left_to_right():
    image = strip([Entry("", ((0, 0, 0), (200, 0, 0), (200, 200, 0)))], 300, text_px=20)
    bar = image[image.shape[0] // 2, 12:106].astype(int)
    assert (np.diff(bar[:, 0]) >= 0).all()
    assert (np.diff(bar[:, 1]) >= 0).all()
    assert np.abs(bar[[0, -1]] - [(0, 0, 0), (200, 200, 0)]).max() < 20


def test_a_long_heading_takes_two_lines_and_is_cut_before_the_edge():
    short, long = (strip(SQUARES, 300, headings=(text,)) for text in ("a ball", "a ball bounces " * 200))
    unbroken = strip(SQUARES, 300, headings=("a" * 4000,))
    assert short.shape == unbroken.shape
    assert 1 < long.shape[0] / short.shape[0] < 2
    for image in (long, unbroken):
        assert columns_with_ink(image)[-1] <= 300 - 6
        assert columns_with_ink(image)[-1] > 280, "more was cut than had to be"


def test_words_of_any_script_are_drawn():
    empty = strip([], 300, headings=(" ",))
    for text in ("Größe", "火が燃える", "вода"):
        assert (strip([], 300, headings=(text,)) != empty).sum() > 100, text
