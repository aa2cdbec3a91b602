"""The notebooks run from top to bottom, and each ends in a picture of what has happened in it."""

import re
from base64 import b64decode
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What the last picture of each shows, asked where it was drawn.
SHOWN = {
    "01_one_video": ["sizes[-1] == config.memory.length + 1", "(holds.sum(dim=0) == 1).all()"],
    "02_long_film": [
        "sizes['merge_adjacent'] == sizes['fifo']",
        "sizes['none'][-1] > 20 * max(sizes['fifo'])",
        "spans['merge_adjacent'][-1][0][0] == 0",
        "spans['fifo'][-1][0][0] == FRAMES - SLOTS - 1",
    ],
    "03_alignment": [
        "before['high'][1] < 0.2",
        "after['high'][1] > 0.9",
        "0.2 < after['low'][1] < 0.7",
    ],
    "04_explain": ["most.changes.min() < -1", "most.stretches[most.changes.argmin()] == (8, 10)"],
    "05_live": ["f1 > 0.8", "any(m.reply for moments in told.values() for m in moments)"],
    "06_zero_shot": ["change['no bank'] == 0 < change['merged to 5']"],
}
NAMED = """
for axis in figure.axes:
    assert axis.get_xlabel() or axis.get_ylabel(), "an axis without a name"
assert figure.get_suptitle() or any(axis.get_title() for axis in figure.axes), "no title"
"""


def cells_of(path):
    return nbformat.read(path, as_version=4).cells


def is_code(cell):
    return cell.cell_type == "code"


def last_picture(cells):
    """The picture that the last code gives, a PNG as an array, or an SVG as text."""
    (last,) = [cell for cell in cells if is_code(cell)][-1:]
    for output in last.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            return np.asarray(Image.open(BytesIO(b64decode(data["image/png"]))).convert("L"))
        if "image/svg+xml" in data:
            return data["image/svg+xml"]
    return None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_ends_in_a_picture_that_shows_what_it_says(path):
    notebook = nbformat.read(path, as_version=4)
    own = len(notebook.cells)
    for claim in SHOWN[path.stem]:
        notebook.cells.append(nbformat.v4.new_code_cell(f"assert {claim}"))
    if "plt.subplots" in [cell for cell in notebook.cells[:own] if is_code(cell)][-1].source:
        notebook.cells.append(nbformat.v4.new_code_cell(NAMED))
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    picture = last_picture(notebook.cells[:own])
    assert picture is not None
    if isinstance(picture, str):
        assert {"time in the film (s)", "memory slot"} <= {*re.findall(r">([^<]+)</text>", picture)}
    else:
        assert min(picture.shape) > 200
        assert picture.std() > 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells_of(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_sentence_stands_in_front_of_each_piece_of_code(path):
    cells = cells_of(path)
    assert not is_code(cells[0])
    assert not [
        code.source for before, code in pairwise(cells) if is_code(before) and is_code(code)
    ]


def test_the_six_are_numbered_as_they_are_read_and_listed_with_their_titles():
    page = (ROOT / "docs" / "examples.md").read_text()
    listed = re.findall(r"^\| \[(\d)\. (.+)\]\(\.\./notebooks/(\w+)\.ipynb\)", page, re.MULTILINE)
    titles = [cells_of(path)[0].source.splitlines()[0].removeprefix("# ") for path in NOTEBOOKS]
    assert listed == [
        (str(number), title, path.stem)
        for number, (title, path) in enumerate(zip(titles, NOTEBOOKS, strict=True), start=1)
    ]
    assert [path.stem[:3] for path in NOTEBOOKS] == [f"{number:02d}_" for number in range(1, 7)]
