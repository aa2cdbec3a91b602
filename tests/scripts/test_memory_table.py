import sys
from pathlib import Path

import pytest

from mmavlm.callbacks import estimate_memory

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from memory_table import KINDS, full_model, table

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_the_table_in_the_docs_is_the_one_the_script_prints(capsys):
    table()
    assert capsys.readouterr().out in (DOCS / "memory.md").read_text()


def test_adapters_and_packed_weights_change_what_they_should():
    plain, lora, packed = (estimate_memory(full_model(kind), 1, 20) for kind in KINDS)
    assert plain.gradients < lora.gradients == packed.gradients
    assert packed.weights < 0.45 * lora.weights
    assert plain.activations < lora.activations == packed.activations < 1.1 * plain.activations
