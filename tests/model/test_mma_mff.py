"""On converted weights the model computes MMA-MFF's equations: losses, LLM inputs, gradients."""

from functools import cache
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

import lavis_model
import mma_mff_model
import small_instructblip
from mma_mff_model import FUSIONS, alignment_losses, leaves, llm_inputs, watch
from mmavlm.core.batch import Batch
from mmavlm.core.interfaces import MediaTokens
from mmavlm.run import build_backbone
from mmavlm.stages import FineTune, SemanticAlignment
from mmavlm.stages.optim import OptimizerRecipe
from mmavlm.weights.lavis import to_ours
from support import composed, random_batch

LAYERS, ALIGNED, BANK = 4, 24, 3
TOLERANCE = 1e-5
CROSS_LAYERS = [0, 1, 2]  # layer 1 has no cross-attention, and counts in the divisor
TARGETS = ("comedy", "is the movie", "movie what", "happens")
FILMS = {
    "a frame": (1, 1), "below the bank": (2, 2, 2), "at the bank": (3, 3, 3),
    "above the bank": (6, 6, 6), "ragged": (6, 4, 3, 2), "down to a frame": (5, 2, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def stage_of(tmp_path_factory):
    """The stage that trains on the converted weights, without dropout, and the weights."""
    folder = tmp_path_factory.mktemp("instructblip")
    small_instructblip.save(folder, layers=LAYERS)

    @cache
    def stage_of(fusion, aligns_alone):
        theirs = mma_mff_model.state_dict(fusion, ALIGNED, blocks=LAYERS, layers=LAYERS)
        save_file(to_ours(theirs, "mff.pth")[0], folder / "ours.safetensors")
        config = composed(
            f"experiment={'mma_mff_stage1' if aligns_alone else 'mma_mff_lvu_genre'}",
            *small_instructblip.overrides(folder, layers=LAYERS),
            f"fusion={fusion}", f"alignment.embed_dim={ALIGNED}", f"cross_layers={CROSS_LAYERS}",
            f"memory.length={BANK}", "vision.norm_eps=1e-5",
            f"init.weights={folder}/ours.safetensors",
        )  # fmt: skip
        model, optimizer = build_backbone(config).eval(), OptimizerRecipe()
        if aligns_alone:
            return SemanticAlignment(model, optimizer), theirs
        weight = config.stage.align_weight
        return FineTune(model, optimizer, tasks=["open"], align_weight=weight), theirs

    return stage_of


def inputs(model, batch):
    """Films, prompts and texts as the published model is given them."""
    pixels = (batch.frames.float() - model.vision.encoder.mean) / model.vision.encoder.std
    films = [film[mask] for film, mask in zip(pixels, batch.frame_mask, strict=True)]
    encode = model.vision.prompt_tokenizer.encode
    prompt = encode(batch.prompt)
    ids = [row[mask] for row, mask in zip(prompt.ids, prompt.mask, strict=True)]
    texts = encode([p + t for p, t in zip(batch.prompt, batch.target, strict=True)])
    return films, ids, (texts.ids, texts.mask)


class Case(NamedTuple):
    """A batch, and what the equations give for it in double precision."""

    stage: torch.nn.Module
    batch: Batch
    losses: dict
    tokens: torch.Tensor | None
    gradients: dict


CASES = {
    f"stage {2 - aligns_alone}, {fusion}, {films}": (fusion, aligns_alone, lengths)
    for fusion in FUSIONS
    for aligns_alone in (True, False)
    for films, lengths in FILMS.items()
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request, stage_of):
    fusion, aligns_alone, lengths = request.param
    stage, theirs = stage_of(fusion, aligns_alone)
    weights, batch = leaves(theirs), random_batch(lengths, targets=TARGETS)
    losses, tokens = published(weights, stage.double(), batch)
    losses["loss"].backward()
    return Case(stage, batch, losses, tokens, gradients(weights, stage))


def published(weights, stage, batch):
    """Losses by name and, in stage 2, the LLM inputs, by the equations."""
    model = stage.backbone
    films, prompts, texts = inputs(model, batch)
    seen = watch(weights, films, prompts, BANK)
    second = model.llm is not None
    high, cross = alignment_losses(weights, seen, texts, layers=CROSS_LAYERS, middle=second)
    losses = {"align_high": high, "align_cross": cross}
    if not second:
        return losses | {"loss": high + cross}, None
    tokens = llm_inputs(weights, seen)
    losses["text"] = model.answer_loss(batch, MediaTokens(tokens, [1] * len(batch)))
    return losses | {"loss": losses["text"] + 0.01 * high + 0.02 * cross}, tokens


def gradients(weights, stage):
    """Those of the published weights by our names; zeros where the loss does not depend on one."""
    named = {
        name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not lavis_model.frozen(name)
    }
    found, _ = to_ours(named, "the gradients", partial=True)
    parameters = stage.backbone.named_parameters()
    trained = {name for name, parameter in parameters if parameter.requires_grad}
    of_stage_2 = {"vision.projector.weight", "vision.projector.bias"}
    assert found.keys() - trained <= of_stage_2
    return {name: found[name] for name in trained}


def ours(stage, batch):
    """Losses by name, and the gradients."""
    stage.zero_grad()
    losses = stage.losses(batch)
    losses["loss"].backward()
    return losses, {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in stage.backbone.named_parameters()
        if parameter.requires_grad
    }


def language_model_inputs(case):
    """As it is asked, and as it learns."""
    model = case.stage.backbone
    watched = model.watch(case.batch)
    with torch.no_grad():
        yield model.video_tokens(model.vision.remember(watched))
    yield model.video_tokens(model.alignment_inputs(watched)[0])


def error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def same_losses(found, expected, tolerance):
    values = {name: loss.item() for name, loss in found.items()}
    return values == pytest.approx({n: loss.item() for n, loss in expected.items()}, rel=tolerance)


def test_in_double_precision_losses_and_each_gradient_are_the_published_ones(case):
    losses, found = ours(case.stage.double(), case.batch)
    assert same_losses(losses, case.losses, 1e-10)
    largest = max(gradient.abs().max() for gradient in case.gradients.values())
    for name, expected in case.gradients.items():
        if expected.abs().max() > 1e-12 * largest:
            assert error(found[name], expected) < 1e-10, name
        else:  # biases of keys, which softmax does not see, and what has no part in the loss
            assert found[name].abs().max() < 1e-12 * largest, name


def test_in_single_precision_losses_inputs_and_the_gradient_are_the_published_ones(case):
    """The gradient as one vector: a scalar's alone may be a small difference of large numbers."""
    losses, found = ours(case.stage.float(), case.batch)
    assert same_losses(losses, case.losses, TOLERANCE)
    if case.tokens is not None:
        for tokens in language_model_inputs(case):
            assert error(tokens, case.tokens) < TOLERANCE
    squares = [((found[n] - g).pow(2).sum(), g.pow(2).sum()) for n, g in case.gradients.items()]
    difference, whole = torch.tensor(squares).sum(dim=0).sqrt()
    assert difference / whole < TOLERANCE
    for name, expected in case.gradients.items():
        limit = max(10 * TOLERANCE * expected.abs().max(), 1e-6 * whole)
        assert (found[name] - expected).abs().max() < limit, name
