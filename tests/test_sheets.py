"""Contact sheets: every picture at its place, words cut before the edge, files whole and small."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from prophy.runs.legend import Entry
from prophy.runs.pictures import evenly_spaced, resized, wrapped, write_png
from prophy.runs.sheets import GAP, MARGIN, Block, Row, draw_sheet


def flat(colour: int, height: int = 40, width: int = 60) -> np.ndarray:
    """Of a colour that no letter has."""
    return np.full((height, width, 3), (colour, 255, 0), np.uint8)


def where(sheet: np.ndarray, colour: int) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what has a colour; all of that rectangle must have it."""
    rows, columns = np.nonzero((sheet == (colour, 255, 0)).all(-1))
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    assert len(rows) == (bottom - top) * (right - left), "something lies over the picture"
    return int(top), int(bottom), int(left), int(right)


def test_pictures_of_a_row_lie_side_by_side_and_rows_one_beneath_the_other():
    sheet = draw_sheet([Block([Row([flat(40), flat(80)]), Row([flat(120), flat(160)])])])
    assert where(sheet, 40) == (MARGIN, MARGIN + 40, MARGIN, MARGIN + 60)
    assert where(sheet, 80) == (MARGIN, MARGIN + 40, MARGIN + 60 + GAP, MARGIN + 120 + GAP)
    assert where(sheet, 120)[0] == MARGIN + 40 + GAP
    assert where(sheet, 160)[2:] == where(sheet, 80)[2:]


def test_blocks_fill_the_columns_and_their_pictures_stand_in_line_whatever_the_headings():
    blocks = [
        Block([Row([flat(40 * i, 80, 200)])], ["a heading " * length], note="seed 7")
        for i, length in ((1, 1), (2, 1), (3, 30), (4, 1))
    ]
    sheet = draw_sheet(blocks, columns=2)
    first, second, third, fourth = (where(sheet, 40 * i) for i in (1, 2, 3, 4))
    assert first[2:] == second[2:], "the first two are in the first column"
    assert third[2:] == fourth[2:] == (2 * MARGIN + 200, 2 * MARGIN + 400)
    assert first[:2] == third[:2]
    assert second[:2] == fourth[:2]


def test_words_stay_off_the_pictures_and_inside_the_sheet():
    rows = [Row([flat(40), flat(80)], "a label"), Row([flat(120), flat(160)], "a far longer label")]
    block = Block(rows, ["word " * 40, "x" * 400], "a note", ("first", "a title far wider than its picture"))
    sheet = draw_sheet([block])
    for colour in (40, 80, 120, 160):
        assert where(sheet, colour)
    assert where(sheet, 40)[2] > MARGIN + 60, "the labels have room"
    legend = draw_sheet([Block(rows, legend=[Entry("what it means", ((1, 2, 3),))])])
    for drawn in (sheet, legend):
        border = drawn.copy()
        border[MARGIN:-MARGIN, MARGIN:-MARGIN] = 255
        assert (border == 255).all()


def test_a_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 blocks in 1 columns make no sheet"):
        draw_sheet([])


def test_frames_are_enlarged_pixel_by_pixel_at_whole_multiples_and_keep_their_shape_otherwise():
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3)).astype(np.uint8)
    assert np.array_equal(resized(frames, 24)[:, ::3, ::3], frames)
    assert resized(frames, 20).shape == (2, 15, 20, 3)
    assert resized(frames, 4).shape == (2, 3, 4, 3)
    assert evenly_spaced(17, 5).tolist() == [0, 4, 8, 12, 16]
    assert evenly_spaced(3, 5).tolist() == [0, 1, 2]


def test_text_is_broken_between_words_and_loses_none():
    text = "a red ball bounces on the floor while purple smoke rises from a chimney"
    lines = wrapped(text, 120)
    assert len(lines) > 2
    assert " ".join(lines) == text
    assert len(wrapped(text, 120, max_lines=2)) == 2


def test_a_noisy_picture_is_rounded_until_its_file_is_small_enough(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    assert write_png(tmp_path / "s.png", noise) > 25_000
    assert np.array_equal(cv2.imread(str(tmp_path / "s.png"))[..., ::-1], noise)
    assert write_png(tmp_path / "s.png", noise, 25_000) < 25_000
    written = cv2.imread(str(tmp_path / "s.png"))[..., ::-1].astype(int)
    assert 0 < np.abs(written - noise).max() <= 4
    with pytest.raises(ValueError, match="not below 10000: make it smaller"):
        write_png(tmp_path / "s.png", noise, 10_000)
    with pytest.raises(ValueError, match="not a .png"):
        write_png(tmp_path / "s.jpg", noise)
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]
