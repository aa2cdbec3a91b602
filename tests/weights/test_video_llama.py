"""Video-LLaMA's weights: key by key there and back, and the published equations on both sides."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import lavis_model
import small_blip2
import video_llama_model
from mmavlm import convert as convert_command
from mmavlm.core.errors import CheckpointError
from mmavlm.run import build_backbone
from mmavlm.weights.convert import convert
from mmavlm.weights.lavis import to_lavis, to_ours
from support import composed, random_batch

UNMAPPED = ("position_ids", "inv_freq", "log_logit_scale")
POSITIONS = "vision.frame_positions.weight"


@pytest.fixture(scope="module")
def theirs():
    return video_llama_model.state_dict()


@pytest.fixture(scope="module")
def tuned(theirs):
    """What its code saves: trained parameters and buffers."""
    return {name: tensor for name, tensor in theirs.items() if video_llama_model.saved(name)}


@pytest.fixture(scope="module")
def audio():
    return video_llama_model.audio_branch()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_blip2.save(tmp_path_factory.mktemp("blip2"))


def same(found, expected):
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def weights_of(state):
    return {name: tensor for name, tensor in state.items() if not name.endswith(UNMAPPED)}


def test_all_of_a_model_goes_there_and_back_bit_by_bit(theirs):
    ours, report = to_ours(theirs, "a.pth")
    assert not report.absent
    assert len(report.mapped) + 2 * len(report.fused) + len(report.left_out) == len(theirs)
    back, _ = to_lavis(ours, "a.safetensors")
    assert same(back, weights_of(theirs))
    assert same(to_ours(back, "b.pth")[0], ours)


STARTS = {
    "ViT": "visual_encoder.", "LayerNorm behind the ViT": "ln_vision.",
    "image queries": "query_tokens", "image Q-Former": "Qformer.bert.",
    "frame positions": "video_frame_position_embedding.", "video queries": "video_query_tokens",
    "video Q-Former": "video_Qformer.bert.", "projection": "llama_proj.",
    "language model": "llama_model.",
}  # fmt: skip


@given(st.sets(st.sampled_from(sorted(STARTS)), min_size=1), st.integers(1, 3), st.integers(1, 3))
def test_any_parts_of_any_depth_that_tell_its_kind_go_there_and_back(kept, blocks, layers):
    state = weights_of(video_llama_model.state_dict(width=8, llm=8, blocks=blocks, layers=layers))
    state = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(tuple(STARTS[part] for part in kept | {"video queries"}))
    }
    ours, report = to_ours(state, "a.pth", partial=True)
    assert set(report.absent) == STARTS.keys() - kept - {"video queries"}
    back, _ = to_lavis(ours, "ours", partial=True)
    assert same(back, state)


def test_the_converted_names_are_those_of_the_whole_model(theirs, folder):
    ours, _ = to_ours(theirs, "a.pth")
    model = build_backbone(composed(*small_blip2.overrides(folder)))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: t.shape for name, t in ours.items()} | {POSITIONS: shapes[POSITIONS]} == shapes
    back, report = to_lavis(model.state_dict(), "ours")
    assert back.keys() == weights_of(theirs).keys()
    assert report.left_out[POSITIONS].startswith("zeros")


@pytest.mark.parametrize("partial", [False, True], ids=["all parts", "a fine-tuned file"])
def test_on_converted_weights_we_compute_what_the_paper_says(
    theirs, tuned, folder, tmp_path, partial
):
    """EVA's ViT, LayerNorm, image Q-Former, frame positions, video Q-Former, projection."""
    torch.save({"model": tuned if partial else theirs}, tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", partial=partial)
    weights = f"init.weights={tmp_path}/ours.safetensors"
    model = build_backbone(composed(*small_blip2.overrides(folder), weights)).eval()
    batch = random_batch((6, 3), targets=("comedy", "comedy"))
    pixels = (batch.frames.float() - model.vision.encoder.mean) / model.vision.encoder.std
    films = [film[mask] for film, mask in zip(pixels, batch.frame_mask, strict=True)]
    frozen = of_folder(folder) if partial else {}
    expected = video_llama_model.video_tokens(theirs | frozen, films).float()
    with torch.no_grad():
        found = model.video_tokens(model.vision.remember(model.watch(batch)))
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5


def test_the_audio_branch_goes_there_and_back_with_the_model_and_alone(theirs, audio):
    for state, partial in (({**theirs, **audio}, False), (audio, True)):
        ours, report = to_ours(state, "a.pth", partial=partial)
        assert audio.keys() <= report.mapped.keys()
        back, _ = to_lavis(ours, "ours", partial=partial)
        assert same(back, weights_of(state))


def test_a_part_of_the_audio_branch_that_is_not_there_is_named(theirs, audio):
    state = {n: t for n, t in audio.items() if not n.startswith("audio_llama_proj.")}
    with pytest.raises(CheckpointError, match=r"not there: audio projection \(audio_llama_proj"):
        to_ours({**theirs, **state}, "a.pth")


def test_on_converted_weights_the_audio_branch_computes_what_the_paper_says(audio, tmp_path):
    """Clip positions, audio Q-Former, projection, behind no LayerNorm."""
    torch.save({"model": audio}, tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", partial=True)
    settings = composed(
        "sound=clip_qformer", "alignment=none", "sound.norm_eps=null", "sound.temporal.heads=4",
        "sound.temporal.num_query_tokens=3", "sound.temporal.width=32",
        "sound.temporal.hidden_width=64", f"sound_encoder.width={video_llama_model.HEARD}",
        "llm.width=32", f"init.weights={tmp_path}/ours.safetensors",
    )  # fmt: skip
    model = build_backbone(settings).eval()
    sounds = torch.randn(2, 5, video_llama_model.HEARD, generator=torch.Generator().manual_seed(3))
    expected = video_llama_model.sound_tokens(audio, sounds).float()
    with torch.no_grad():
        heard = model.sound.watch(sounds[:, :, None], torch.ones(2, 5).bool(), ["", ""])
        found = model.sound.tokens(model.sound.remember(heard))
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5
    names = {name: t.shape for name, t in audio.items()}
    there = {n: t for n, t in model.state_dict().items() if n.startswith("sound.")}
    back, report = to_lavis(there, "ours", partial=True)
    assert {name: t.shape for name, t in back.items()} == names
    assert report.left_out["sound.frame_positions.weight"].startswith("zeros")


def of_folder(folder):
    """ViT, LayerNorm and image Q-Former of the BLIP-2 folder, by Video-LLaMA's names."""
    starts = {
        "vision_model.post_layernorm.": "vision.norm.",
        "vision_model.": "vision.encoder.vision_model.",
        "qformer.": "vision.temporal.image_qformer.",
        "query_tokens": "vision.temporal.image_queries",
    }
    ours = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        old = next((start for start in starts if name.startswith(start)), None)
        if old is not None:
            ours[starts[old] + name.removeprefix(old)] = tensor
    return to_lavis(ours, "the folder", partial=True)[0]


def test_a_fine_tuned_file_converts_only_if_told_and_names_what_is_not_there(tuned):
    with pytest.raises(CheckpointError, match=r"not there: ViT \(visual_encoder.…\), LayerNorm"):
        to_ours(tuned, "best.pth")
    ours, report = to_ours(tuned, "best.pth", partial=True)
    assert list(report.absent) == [
        "ViT", "LayerNorm behind the ViT", "image queries", "image Q-Former", "language model",
    ]  # fmt: skip
    assert {name.split(".")[2] for name in ours if "temporal" in name} == {
        "time_table", "time_queries", "time_qformer",
    }  # fmt: skip
    assert set(report.left_out) == {name for name in tuned if name.endswith(UNMAPPED)}
    assert same(to_lavis(ours, "ours", partial=True)[0], weights_of(tuned))


def test_what_its_code_takes_out_of_bert_is_left_out_with_the_reason(theirs):
    text = {
        f"{start}Qformer.{name}": torch.zeros(1)
        for start in ("", "video_", "audio_")
        for name in (
            "bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight",
            "bert.encoder.layer.0.intermediate.dense.weight", "cls.predictions.bias",
            "bert.encoder.layer.1.output.dense.bias", "bert.encoder.layer.1.output.LayerNorm.bias",
        )
    }  # fmt: skip
    audio = {"audio_encoder.modality_heads.audio.2.weight": torch.zeros(1)}
    ours, report = to_ours({**theirs, **text, **audio}, "a.pth")
    assert same(ours, to_ours(theirs, "a.pth")[0])
    assert {*text, *audio} <= set(report.left_out)
    reasons = {name: why for name, why in report.left_out.items() if name in {*text, *audio}}
    assert {why for name, why in reasons.items() if name in text} == {
        "the Q-Former's path for text, which Video-LLaMA takes out",
        "the Q-Former's head for words, which Video-LLaMA takes out",
    }
    assert "audio.2.weight: ImageBind's, of which sound_encoder=imagebind reads" in str(report)


def test_blip2s_file_by_lavis_gives_the_image_q_former_and_not_its_projection(theirs):
    held = ("ln_vision.", "query_tokens", "Qformer.")
    state = {name: tensor for name, tensor in theirs.items() if name.startswith(held)}
    ours, report = to_ours({**state, "t5_proj.bias": torch.zeros(3)}, "blip2.pth", partial=True)
    assert same(ours, {n: t for n, t in to_ours(theirs, "a")[0].items() if n in ours})
    assert {name.split(".")[2] for name in ours if "temporal" in name} == {
        "image_qformer", "image_queries",
    }  # fmt: skip
    assert report.left_out["t5_proj.bias"] == "BLIP-2's projection to another language model"


def test_a_file_of_ma_lmm_whose_q_former_was_frozen_is_still_ma_lmms():
    held = ("llm_proj.", "image_pe.", "Qformer.bert.embeddings.position_ids")
    state = {n: t for n, t in lavis_model.state_dict().items() if n.startswith(held)}
    ours, _ = to_ours(state, "best.pth", partial=True)
    assert set(ours) == {POSITIONS, "vision.projector.weight", "vision.projector.bias"}


def test_the_projection_of_minigpt4_fills_the_projector_alone(theirs, folder, tmp_path):
    state = {name: tensor for name, tensor in theirs.items() if name.startswith("llama_proj.")}
    torch.save({"model": state}, tmp_path / "minigpt4.pth")
    convert(tmp_path / "minigpt4.pth", tmp_path / "ours.safetensors", partial=True)
    weights = f"init.weights={tmp_path}/ours.safetensors"
    model = build_backbone(composed(*small_blip2.overrides(folder), weights))
    assert torch.equal(model.vision.projector.weight, theirs["llama_proj.weight"])
    assert torch.equal(model.vision.projector.bias, theirs["llama_proj.bias"])
    assert len(load_file(tmp_path / "ours.safetensors")) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_Qformer.bert.pooler.weight": 1}, "1 unexpected: video_Qformer.bert.pooler.weight"),
        ({"image_pe.weight": 1}, "do not fit Video-LLaMA's names.*\n.*unexpected: image_pe.weight"),
        ({"llama_proj.bias": None}, "1 missing: llama_proj.bias"),
        ({"audio_llama_proj.bias": None}, "1 missing: audio_llama_proj.bias"),
        ({"audio_Qformer.bert.pooler.weight": 1}, "1 unexpected: audio_Qformer.bert.pooler.weight"),
        (
            {"video_Qformer.bert.encoder.layer.1.output_query.dense.bias": None},
            "1 missing: video_Qformer.bert.encoder.layer.1.output_query.dense.bias",
        ),
        (
            {"Qformer.bert.encoder.layer.2.crossattention.self.key.weight": None},
            "1 missing: Qformer.bert.encoder.layer.2.crossattention.self.key.weight",
        ),
    ],
)
def test_a_name_too_many_or_too_few_is_an_error(theirs, audio, change, message):
    state = {**theirs, **audio}
    for name, size in change.items():
        state.pop(name, None)
        if size is not None:
            state[name] = torch.zeros(size)
    with pytest.raises(CheckpointError, match=message):
        to_ours(state, "a.pth", partial=True)


def test_what_video_llama_cannot_hold_is_refused_on_the_way_back(theirs):
    ours, _ = to_ours(theirs, "a.pth")
    back, report = to_lavis({**ours, "alignment.x": torch.zeros(1)}, "ours")
    assert same(back, weights_of(theirs))
    assert list(report.left_out) == ["alignment.x"]
    for name in (POSITIONS, "vision.fusion.mix", "sound.norm.weight"):
        with pytest.raises(CheckpointError, match=rf"Video-LLaMA's model:\n.*unexpected: {name}"):
            to_lavis({**ours, name: torch.ones(2)}, "ours")


def test_the_command_converts_a_checkpoint_there_and_back(tuned, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": tuned, "config": {"run": {}}, "epoch": 4}, "checkpoint_4.pth")
    for pair in (("checkpoint_4.pth", "vl.safetensors"), ("vl.safetensors", "back.pth")):
        monkeypatch.setattr(sys, "argv", ["convert", *pair, "partial=true"])
        convert_command.main()
    assert "not there: image Q-Former (Qformer.bert.…)" in capsys.readouterr().out
    assert same(torch.load("back.pth", weights_only=True)["model"], weights_of(tuned))
