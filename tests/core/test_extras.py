"""What a message tells to install exists, and helps also without a clone."""

import ast
import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

from mmavlm.callbacks.loggers import PACKAGES
from mmavlm.core.extras import install, needs_extra

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src/mmavlm").rglob("*.py"))
EXTRAS = set(metadata("mmavlm").get_all("Provides-Extra"))


def named_extras():
    """Module and extra of every call that names one as a literal."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = getattr(getattr(node, "func", None), "id", "")
            if name in ("install", "needs_extra") and isinstance(node.args[-1], ast.Constant):
                yield path.stem, node.args[-1].value


def test_every_extra_that_a_message_names_can_be_installed():
    named = dict(named_extras())
    assert {"captions", "diffusion", "adapt"} <= named.keys()
    assert {*named.values(), *PACKAGES.values()} <= EXTRAS


@pytest.mark.parametrize("line", ["pip install 'mmavlm[lora]'", "pip install -e '.[lora]'"])
def test_a_message_helps_with_and_without_a_clone(line):
    assert line in install("lora")
    assert needs_extra("llm.lora", "peft", "lora").startswith("llm.lora needs peft, not installed")


def test_no_other_part_of_the_library_writes_such_a_line():
    for path in SOURCES:
        if path.stem not in ("extras", "new"):  # what is new is a package of the user's own
            assert not re.search(r"pip install -e|mmavlm\[", path.read_text(encoding="utf-8"))
