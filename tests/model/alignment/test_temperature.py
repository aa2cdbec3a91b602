import pytest
import torch

from mmavlm.core.errors import ConfigError
from mmavlm.model.alignment import Temperature


def test_temperature_is_the_factor_of_similarities():
    torch.testing.assert_close(Temperature(0.05)(), torch.tensor([20.0]))


def test_a_fixed_temperature_has_nothing_to_learn_or_to_save():
    temperature = Temperature()
    assert list(temperature.parameters()) == []
    assert temperature.state_dict() == {}


def test_a_learned_temperature_stops_at_its_minimum_and_can_leave_it_again():
    temperature = Temperature(0.02, learnable=True, minimum=0.01)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=0.1)
    for sign in (-1, 1):
        for _ in range(20):
            optimizer.zero_grad()
            (sign * temperature().log()).sum().backward()
            optimizer.step()
        if sign < 0:
            assert temperature.log_scale.item() > temperature.highest
            assert temperature().item() == pytest.approx(100)
    assert temperature().item() == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize(("initial", "minimum"), [(0.005, 0.01), (0.0, 0.0), (-1.0, 0.01)])
def test_a_temperature_outside_its_bounds_is_refused(initial, minimum):
    message = f"alignment.temperature has initial={initial} and minimum={minimum}; choose 0 <"
    with pytest.raises(ConfigError, match=message):
        Temperature(initial, minimum=minimum)
