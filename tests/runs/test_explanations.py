import pytest

from mmavlm.errors import ConfigError
from mmavlm.runs import ExplainAnswers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_task": -1}, "per_task=-1; give how many answers"),
        ({"stretches": 1}, "stretches=1; give 2 or more"),
        ({"stretches": -2}, "stretches=-2; give 2 or more"),
    ],
)
def test_settings_that_explain_nothing_sensible_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ExplainAnswers(**settings)
