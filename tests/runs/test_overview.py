from torch import nn

from mmavlm.runs import estimate_memory


def test_frozen_parameters_cost_weights_alone():
    module = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    module[0].requires_grad_(False)
    estimate = estimate_memory(module, activations=5)
    assert estimate.weights == 2 * 400
    assert estimate.gradients == 400
    assert estimate.optimizer == 2 * 400
    assert estimate.total == 800 + 400 + 800 + 5


def test_half_precision_weights_take_half_the_memory():
    module = nn.Linear(10, 10, bias=False)
    assert estimate_memory(module.half()).weights == 200
