"""LAVIS's weights: key by key there and back, and the published equations on both sides."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import InstructBlipForConditionalGeneration

import lavis_model
import small_instructblip
from mmavlm.core.errors import CheckpointError
from mmavlm.run import build_backbone
from mmavlm.weights.convert import convert
from mmavlm.weights.lavis import to_lavis, to_ours
from support import composed, random_batch

LAYERS = 4
COMPUTED = "Qformer.bert.embeddings.position_ids"


@pytest.fixture(scope="module")
def theirs():
    return lavis_model.state_dict(blocks=LAYERS, layers=LAYERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_instructblip.save(tmp_path_factory.mktemp("instructblip"), layers=LAYERS)


def overrides(folder, *more):
    return [*small_instructblip.overrides(folder, layers=LAYERS), *more]


def same(found, expected):
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_all_of_a_model_goes_there_and_back_bit_by_bit(theirs):
    ours, report = to_ours(theirs, "a.pth")
    back, _ = to_lavis(ours, "a.safetensors")
    kept = {name: t for name, t in theirs.items() if not name.endswith("inv_freq")}
    assert same(back, kept)
    assert back[COMPUTED].dtype == torch.int64
    again, _ = to_ours(back, "b.pth")
    assert same(again, ours)
    assert len(report.mapped) + 2 * len(report.fused) + len(report.left_out) == len(theirs)
    assert not report.absent


STARTS = {
    "ViT": "visual_encoder.", "LayerNorm behind the ViT": "ln_vision.",
    "frame positions": "image_pe.", "query tokens": "query_tokens", "Q-Former": "Qformer.bert.",
    "projection": "llm_proj.", "language model": "llm_model.",
}  # fmt: skip


@given(st.sets(st.sampled_from(sorted(STARTS)), min_size=1), st.integers(1, 3), st.integers(1, 3))
def test_any_parts_of_any_depth_go_there_and_back(kept, blocks, layers):
    state = lavis_model.state_dict(width=8, llm=8, blocks=blocks, layers=layers)
    state = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(tuple(STARTS[part] for part in kept)) and "inv_freq" not in name
    }
    ours, report = to_ours(state, "a.pth", partial=True)
    assert set(report.absent) == STARTS.keys() - kept
    back, report = to_lavis(ours, "ours", partial=True)
    assert set(report.absent) == STARTS.keys() - kept
    assert same(back, state)


def test_query_and_value_bias_become_one_with_nothing_for_the_keys(theirs):
    ours, report = to_ours(theirs, "a.pth")
    name, attention = (
        "vision.encoder.vision_model.encoder.layers.1.self_attn.qkv.bias",
        "blocks.1.attn",
    )
    query, key, value = ours[name].chunk(3)
    assert torch.equal(query, theirs[f"visual_encoder.{attention}.q_bias"])
    assert torch.equal(value, theirs[f"visual_encoder.{attention}.v_bias"])
    assert not key.any()
    assert report.fused[name] == tuple(f"visual_encoder.{attention}.{b}_bias" for b in "qv")


def test_the_converted_names_are_those_of_the_whole_model(theirs, folder):
    ours, _ = to_ours(theirs, "a.pth")
    model = build_backbone(composed(*overrides(folder)))
    shapes = {n: t.shape for n, t in model.state_dict().items() if not n.startswith("alignment.")}
    assert {name: tensor.shape for name, tensor in ours.items()} == shapes


def test_the_names_agree_with_those_of_transformers(theirs):
    """What transformers calls the same tensors, less the beginnings of the parts."""
    ours, _ = to_ours(theirs, "a.pth")
    starts = {
        "vision.encoder.vision_model.": "vision_model.",
        "vision.norm.": "vision_model.post_layernorm.",
        "vision.temporal.qformer.": "qformer.", "vision.temporal.query_tokens": "query_tokens",
        "vision.projector.": "language_projection.", "llm.model.": "language_model.",
    }  # fmt: skip
    named = {
        new + name.removeprefix(old)
        for name in ours
        for old, new in starts.items()
        if name.startswith(old)
    }
    with torch.device("meta"):
        config = small_instructblip.config(32, LAYERS, small_instructblip.VOCABULARY)
        expected = InstructBlipForConditionalGeneration(config).state_dict().keys()
    assert named == set(expected)


@pytest.mark.parametrize("partial", [False, True], ids=["all parts", "a fine-tuned file"])
def test_on_converted_weights_we_compute_what_the_papers_say(theirs, folder, tmp_path, partial):
    """EVA's ViT, LayerNorm, frame positions, Q-Former with both banks, projection."""
    tuned = {name: t for name, t in theirs.items() if not (partial and lavis_model.frozen(name))}
    torch.save({"model": tuned}, tmp_path / "lavis.pth")
    convert(tmp_path / "lavis.pth", tmp_path / "ours.safetensors", partial=partial)
    config = composed(*overrides(
        folder, f"init.weights={tmp_path}/ours.safetensors", f"memory.length={lavis_model.BANK}",
        "vision.norm_eps=1e-5",
    ))  # fmt: skip
    model = build_backbone(config).eval()
    batch = random_batch((6, 3), targets=("comedy", "comedy"))
    prompt = model.vision.prompt_tokenizer.encode(batch.prompt)
    pixels = (batch.frames.float() - model.vision.encoder.mean) / model.vision.encoder.std
    ids = [row[mask] for row, mask in zip(prompt.ids, prompt.mask, strict=True)]
    films = [film[mask] for film, mask in zip(pixels, batch.frame_mask, strict=True)]
    weights = theirs if not partial else theirs | vit_of(folder)
    expected = lavis_model.video_tokens(weights, films, ids).float()
    with torch.no_grad():
        found = model.video_tokens(model.vision.remember(model.watch(batch)))
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5


def vit_of(folder):
    """The ViT that lies in the InstructBLIP folder, by LAVIS's names."""
    state = load_file(folder / "model.safetensors")
    start = "vision_model."
    ours = {f"vision.encoder.{n}": t for n, t in state.items() if n.startswith(start)}
    ours = {name: t for name, t in ours.items() if "post_layernorm" not in name}
    return to_lavis(ours, "the folder", partial=True)[0]


def test_a_fine_tuned_file_converts_only_if_told_and_names_what_is_not_there(theirs):
    tuned = {name: t for name, t in theirs.items() if not lavis_model.frozen(name)}
    with pytest.raises(CheckpointError, match=r"not there: ViT \(visual_encoder.…\), language mod"):
        to_ours(tuned, "best.pth")
    ours, report = to_ours(tuned, "best.pth", partial=True)
    assert report.absent == {"ViT": "visual_encoder.…", "language model": "llm_model.…"}
    assert sum(name.endswith("inv_freq") for name in report.left_out) == LAYERS
    back, _ = to_lavis(ours, "ours", partial=True)
    assert same(back, {name: t for name, t in tuned.items() if "inv_freq" not in name})


def test_heads_of_earlier_training_are_left_out_with_the_reason(theirs):
    extra = {"Qformer.cls.predictions.bias": torch.zeros(1), "temp": torch.ones(()),
             "itm_head.weight": torch.zeros(1), "vision_proj.bias": torch.zeros(1)}  # fmt: skip
    ours, report = to_ours({**theirs, **extra}, "a.pth")
    assert same(ours, to_ours(theirs, "a.pth")[0])
    assert set(extra) <= set(report.left_out)
    assert "which InstructBLIP does not use" in report.left_out["Qformer.cls.predictions.bias"]
    assert "temp: of BLIP-2's first stage" in str(report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Qformer.bert.pooler.weight": 1}, "1 unexpected: Qformer.bert.pooler.weight"),
        ({"ln_vision.bias": None}, "1 missing: ln_vision.bias"),
        ({"Qformer.bert.encoder.layer.1.output_query.dense.bias": None}, "1 missing: Qformer.bert"),
        ({"visual_encoder.blocks.0.attn.v_bias": None}, "q_bias but not .*attn.v_bias"),
        ({"visual_encoder.blocks.0.attn.q_bias": None}, "unexpected: visual_encoder.*v_bias"),
        ({"visual_encoder.blocks.0.attn.q_bias": 3}, r"q_bias has shape \(3,\)"),
    ],
)
def test_a_name_too_many_too_few_or_of_no_such_shape_is_an_error(theirs, change, message):
    state = dict(theirs)
    for name, size in change.items():
        state.pop(name, None)
        if size is not None:
            state[name] = torch.zeros(size)
    with pytest.raises(CheckpointError, match=message):
        to_ours(state, "a.pth", partial=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vision.fusion.attention.weight", "unexpected: vision.fusion.attention.weight"),
        ("llm.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "unexpected: .*lora_A"),
    ],
)
def test_what_lavis_cannot_hold_is_refused_on_the_way_back(theirs, name, message):
    ours, _ = to_ours(theirs, "a.pth")
    with pytest.raises(CheckpointError, match=message):
        to_lavis({**ours, name: torch.zeros(1)}, "ours")


def test_a_bias_of_keys_is_refused_on_the_way_back(theirs):
    ours, _ = to_ours(theirs, "a.pth")
    name = "vision.encoder.vision_model.encoder.layers.0.self_attn.qkv.bias"
    with pytest.raises(CheckpointError, match=r"layers.0.self_attn.qkv.bias holds biases of keys"):
        to_lavis({**ours, name: torch.ones_like(ours[name])}, "ours")


def test_alignment_is_left_out_on_the_way_back(theirs):
    ours, _ = to_ours(theirs, "a.pth")
    back, report = to_lavis({**ours, "alignment.log_temperature": torch.zeros(1)}, "ours")
    assert same(back, to_lavis(ours, "ours")[0])
    assert list(report.left_out) == ["alignment.log_temperature"]


def test_flan_t5_has_other_names_and_shares_its_words(theirs, tmp_path):
    words = torch.randn(11, 32)
    state = {name: t for name, t in theirs.items() if not name.startswith("llm_")}
    state |= {"t5_proj.weight": theirs["llm_proj.weight"], "t5_proj.bias": theirs["llm_proj.bias"]}
    state |= {f"t5_model.{n}.weight": words for n in ("shared", "encoder.embed_tokens")}
    torch.save({"model": state}, tmp_path / "t5.pth")
    convert(tmp_path / "t5.pth", tmp_path / "t5.safetensors")
    assert "llm.model.encoder.embed_tokens.weight" in load_file(tmp_path / "t5.safetensors")
    convert(tmp_path / "t5.safetensors", tmp_path / "back.pth", language_model="t5")
    assert same(torch.load(tmp_path / "back.pth", weights_only=True)["model"], state)


def test_dtypes_stay_as_they_are(theirs):
    half = {n: t.half() if n.startswith("visual_encoder.") else t for n, t in theirs.items()}
    ours, _ = to_ours(half, "a.pth")
    assert {t.dtype for n, t in ours.items() if n.startswith("vision.encoder.")} == {torch.float16}
    kept = {name: t for name, t in half.items() if "inv_freq" not in name}
    assert same(to_lavis(ours, "a")[0], kept)


def test_weights_of_another_size_do_not_load(theirs, folder, tmp_path):
    ours, _ = to_ours(theirs, "a.pth")
    ours["vision.norm.weight"] = torch.zeros(7)
    del ours["vision.projector.bias"]
    save_file(ours, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError) as error:
        build_backbone(composed(*overrides(folder, f"init.weights={tmp_path}/a.safetensors")))
    assert "1 missing: vision.projector.bias" in str(error.value)
    assert "vision.norm.weight (7,) instead of (32,)" in str(error.value)
