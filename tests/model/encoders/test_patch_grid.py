import pytest
import torch

from mmavlm.core.interfaces import PatchGrid
from mmavlm.model.encoders import InstructBlipEncoder, TimmEncoder, TinyEncoder
from mmavlm.model.encoders.timm import _grid

VIT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 56, "patch_size": 14,
}  # fmt: skip
ENCODERS = {
    "tiny": lambda: TinyEncoder(image_size=32, patch_size=8),
    "timm, one class token": lambda: TimmEncoder("test_vit", pretrained=False, image_size=64),
    "timm, class and registers": lambda: TimmEncoder("test_vit2", pretrained=False),
    "instructblip": lambda: InstructBlipEncoder(config=VIT, dtype="float32"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_the_token_of_a_patch_changes_most_when_the_patch_does(name):
    torch.manual_seed(0)
    encoder = ENCODERS[name]()
    grid = encoder.patch_grid
    assert grid.stop == encoder.num_tokens
    frame = torch.randint(0, 256, (1, 3, encoder.image_size, encoder.image_size)).to(torch.uint8)
    size = encoder.image_size // grid.rows
    for row, column in ((0, 0), (1, 0), (grid.rows - 1, 1)):
        changed = frame.clone()
        changed[..., row * size : (row + 1) * size, column * size : (column + 1) * size] = 0
        moved = (encoder(changed) - encoder(frame))[0].float().norm(dim=-1)
        assert moved[grid.first : grid.stop].argmax() == row * grid.columns + column


def test_tokens_that_do_not_add_up_have_no_grid():
    model = TimmEncoder("test_vit", pretrained=False, image_size=64).model
    assert _grid(model, 17) == PatchGrid(1, 4, 4)
    assert _grid(model, 16) is None
    assert _grid(torch.nn.Linear(2, 2), 16) is None
