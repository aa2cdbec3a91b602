import pytest
import torch

from support import peak_bytes, random_batch, tiny_backbone

WIDE = ["qformer.layers=6", "qformer.hidden_width=1024", "aligned_frames=all"]


def gradients(model, batch):
    torch.manual_seed(3)
    model.zero_grad()
    sum(model.train()(batch).values()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_layers_that_are_computed_again_give_the_same_gradients(dropout):
    overrides = [f"qformer.dropout={dropout}", "temporal.backprop_frames=2", "aligned_frames=all"]
    batch = random_batch((4, 2))
    plain, again = (
        gradients(tiny_backbone(*overrides, f"qformer.gradient_checkpointing={on}").double(), batch)
        for on in ("false", "true")
    )
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-12, rtol=1e-9, msg=name)


def test_layers_that_are_computed_again_hold_less():
    batch = random_batch((6,) * 8, targets=["comedy", "a ball"] * 4)
    models = [
        tiny_backbone("stage=semantic_alignment", *WIDE, f"qformer.gradient_checkpointing={on}")
        for on in ("false", "true")
    ]
    peaks = [
        peak_bytes(lambda m=m: sum(m(batch, answer=False).values()).backward()) for m in models
    ]
    assert peaks[1] < 0.6 * peaks[0]
    plain, again = (model.activation_bytes(8, 6) for model in models)
    assert again / plain == pytest.approx(peaks[1] / peaks[0], abs=0.25)


def test_evaluation_computes_each_layer_once():
    model = tiny_backbone("qformer.gradient_checkpointing=true", "alignment=none").eval()
    layer, seen = model.vision.temporal.qformer.layers[0], []
    layer.output.register_forward_hook(lambda *args: seen.append(1))
    with torch.no_grad():
        model(random_batch((3, 3)))
    assert len(seen) == 1  # all frames in one call, and none computed anew
