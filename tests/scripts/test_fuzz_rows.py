import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import fuzz_rows
from mmavlm.core.items import Item
from mmavlm.data.readers.entries import Found, SkippingReader
from row_mutations import OF_TEXTS, Damage, damage_value
from row_samples import Sample, encoded, samples


def test_damaged_rows_are_refused_by_their_place_or_read_as_meant(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fuzz_rows", "--count", "12", "--seed", "7", "--json"])
    with pytest.raises(SystemExit) as end:
        fuzz_rows.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["faults"] == []
    assert end.value.code == 0
    assert told["sets"] == 12 * len(samples())
    assert {"read", "refused"} <= told.keys()


class Careless(SkippingReader):
    """A reader that takes whatever comes."""

    def classes(self, root, task):
        return {}

    def read(self, root, split, task):
        rows = map(json.loads, (root / "a.jsonl").read_text().splitlines())
        items = [
            Item.question(item_id=str(i), video_id="a", source=root, prompt="who?",
                      target=str(row["answer"]), task="open")
            for i, row in enumerate(rows)
        ]  # fmt: skip
        return Found(items, {})


@pytest.mark.parametrize("value", [["a"], {"a": 1}, None, True, float("nan"), float("inf"), 1e300])
def test_a_python_form_in_a_text_is_found(tmp_path, value):
    rows = [{"answer": "a dog"}, {"answer": "a cat"}]
    sample = Sample("careless", Careless, "a.jsonl", rows)
    sample.write(tmp_path)
    whole, _ = fuzz_rows.read(sample, tmp_path)
    damage = Damage("value", "answer")
    assert fuzz_rows.judge(sample, damage, tmp_path, whole) == ("read", "")
    (tmp_path / "a.jsonl").write_text(encoded([{"answer": value}, rows[1]], ".jsonl"))
    assert fuzz_rows.judge(sample, damage, tmp_path, whole)[0] == "python form"


def test_a_value_that_cannot_be_meant_and_is_taken_is_found(tmp_path):
    sample = Sample("careless", Careless, "a.jsonl", [{"answer": "a dog"}])
    sample.write(tmp_path)
    damage = Damage("blank", "answer", never=True)
    assert fuzz_rows.judge(sample, damage, tmp_path, [])[0] == "taken"


def test_an_error_of_another_kind_is_a_fault(tmp_path):
    sample = Sample("careless", Careless, "a.jsonl", [{"answer": "a dog"}])
    (tmp_path / "a.jsonl").write_text("{")
    outcome, detail = fuzz_rows.judge(sample, Damage("cut"), tmp_path, [])
    assert (outcome, "JSONDecodeError" in detail) == ("crash", True)


def test_damage_of_rows_follows_from_the_seed():
    for sample in samples():
        text = encoded(sample.content, Path(sample.path).suffix)
        for way in OF_TEXTS:
            once, again = (way(text, np.random.default_rng(3)) for _ in range(2))
            assert once == again
        contents = [json.loads(json.dumps(sample.content)) for _ in range(2)]
        once, again = (damage_value(c, np.random.default_rng(3), table=False) for c in contents)
        assert (once, contents[0]) == (again, contents[1])
        assert contents[0] != sample.content
