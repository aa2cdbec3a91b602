import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from habit_curves import drawing, main, read_points, table


@pytest.fixture
def points(tmp_path):
    """Two sweeps; the second has an arm more, and one seed."""
    both = {"baseline": 0.3, "one_level": 0.25}
    for x, arms, seeds in (("0.6", ["baseline"], 2), ("0.9", list(both), 1)):
        means = {
            arm: {
                score: {
                    "values": {str(s): both[arm] for s in range(seeds)},
                    "mean": both[arm],
                    "low": both[arm] - 0.1 if seeds > 1 else None,
                    "high": both[arm] + 0.1 if seeds > 1 else None,
                }
                for score in ("habit", "both")
            }
            for arm in arms
        }
        (tmp_path / x).mkdir()
        (tmp_path / x / "arms.json").write_text(json.dumps({"means": means}))
    return [f"0.6={tmp_path}/0.6", f"0.9={tmp_path}/0.9"]


def test_the_table_has_a_row_an_arm_and_score_and_a_column_a_sweep(points):
    rows = table(read_points(points), "bias").splitlines()
    assert rows[0] == "| arm | score | bias 0.6 | bias 0.9 |"
    assert "| baseline | habit | 30.0 (20.0 to 40.0) | 30.0 |" in rows
    assert "| one_level | both |  | 25.0 |" in rows


def test_the_drawing_names_arms_and_points(points):
    svg = drawing(read_points(points), "bias in training")
    assert all(f">{word}<" in svg for word in ("0.6", "0.9", "one_level", "bias in training"))


def test_the_command_prints_and_draws(points, tmp_path, capsys):
    main([*points, "--x", "bias", "--plot", str(tmp_path / "curves.svg")])
    assert "| baseline | habit |" in capsys.readouterr().out
    assert (tmp_path / "curves.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("point", ["0.6", "=folder", "0.6=nowhere"])
def test_what_is_no_sweep_is_refused(point, capsys):
    with pytest.raises(SystemExit):
        main([point])
    assert "is no point: give x=folder" in capsys.readouterr().err


def test_some_arms_may_be_asked_for_and_one_that_was_not_run_is_named(points, capsys):
    main([*points, "--arms", "one_level"])
    told = capsys.readouterr().out
    assert "one_level" in told
    assert "baseline" not in told
    with pytest.raises(SystemExit):
        main([*points, "--arms", "one_level, two_levels"])
    assert "no sweep has the arm 'two_levels'; there are baseline" in capsys.readouterr().err
