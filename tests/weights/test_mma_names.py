"""MMA-MFF's weights: key by key there and back, every copy equal, and what has no place there."""

import logging

import pytest
import torch
from safetensors.torch import save_file

import lavis_model
import mma_mff_model
import small_instructblip
from mma_mff_model import FUSIONS
from mmavlm.core.errors import CheckpointError
from mmavlm.run import build_backbone
from mmavlm.weights.convert import convert
from mmavlm.weights.lavis import to_lavis, to_ours
from mmavlm.weights.weight_files import WeightFile
from support import composed, tiny_backbone

LAYERS, ALIGNED, WIDTH = 4, 24, 32
KEPT_ONCE = ("T1.", "Qformer.bert.encoder.layer.0.clip4qformer.")


@pytest.fixture(scope="module")
def theirs():
    """The published states by fusion, None for MMA's."""
    return {
        fusion: mma_mff_model.state_dict(fusion, ALIGNED, blocks=LAYERS, layers=LAYERS)
        for fusion in (*FUSIONS, None)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_instructblip.save(tmp_path_factory.mktemp("instructblip"), layers=LAYERS)


def model(folder, *more):
    published = ["alignment=mma_code", f"alignment.embed_dim={ALIGNED}", "cross_layers=[0,1,2]"]
    return build_backbone(
        composed(*small_instructblip.overrides(folder, layers=LAYERS), *published, *more)
    )


def same(found, expected):
    assert found.keys() == expected.keys()
    return all(
        torch.equal(found[name], tensor) and found[name].shape == tensor.shape
        for name, tensor in expected.items()
    )


@pytest.mark.parametrize("fusion", [*FUSIONS, None])
def test_a_whole_model_goes_there_and_back_bit_by_bit(theirs, fusion):
    ours, report = to_ours(theirs[fusion], "a.pth")
    back, report_back = to_lavis(ours, "a.safetensors")
    assert same(back, {n: t for n, t in theirs[fusion].items() if not n.endswith("inv_freq")})
    assert same(to_ours(back, "b.pth")[0], ours)
    counted = [report.mapped, report.copied, report.left_out]
    assert 2 * len(report.fused) + sum(map(len, counted)) == len(theirs[fusion])
    copies = {"clip_text_embedding.position_ids": "Qformer.bert.embeddings.position_ids"}
    assert report_back.copied == report.copied | copies


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_converted_names_and_shapes_are_those_of_the_model(theirs, folder, fusion):
    ours, report = to_ours(theirs[fusion], "a.pth")
    wanted = model(folder, f"fusion={fusion}").state_dict()
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in wanted.items()}
    assert not report.absent


@pytest.mark.parametrize("fusion", FUSIONS)
def test_files_go_there_and_back_through_a_model(theirs, folder, fusion, tmp_path):
    torch.save({"model": theirs[fusion]}, tmp_path / "theirs.pth")
    convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    # the parts in between are loaded, the frozen ones come from the folder
    loaded = model(folder, f"fusion={fusion}", f"init.weights={tmp_path}/ours.safetensors")
    save_file(loaded.state_dict(), tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "back.pth")
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    tuned = {n: t for n, t in theirs[fusion].items() if not n.startswith(("visual_", "llm_model"))}
    assert same({name: back[name] for name in tuned}, tuned)


@pytest.mark.parametrize("level", ["high", "cross"])
def test_projections_are_transposed_and_scales_are_one_entry_long(theirs, level):
    ours, _ = to_ours(theirs[None], "a.pth")
    start = dict(zip(("high", "cross"), KEPT_ONCE, strict=True))[level]
    for name, here in (("text", "text"), ("qformer", "video")):
        matrix = ours[f"alignment.{here}_projections.{level}.weight"]
        assert matrix.shape == (ALIGNED, WIDTH)
        assert torch.equal(matrix, theirs[None][f"{start}{name}_projection"].T)
    assert ours[f"alignment.temperatures.{level}.log_scale"].shape == (1,)


@pytest.mark.parametrize(
    ("copy", "original"),
    [
        ("Qformer.bert.encoder.layer.3.clip4qformer.text_projection", f"{KEPT_ONCE[1]}text_proj"),
        ("Qformer.bert.encoder.layer.1.clip4qformer.logit_scale", f"{KEPT_ONCE[1]}logit_scale"),
        ("clip_text_embedding.word_embeddings.weight", "Qformer.bert.embeddings.word_embeddings"),
        ("clip_text_embedding.LayerNorm.bias", "Qformer.bert.embeddings.LayerNorm.bias"),
    ],
)
def test_copies_must_be_equal_and_all_there(theirs, copy, original):
    changed = {**theirs[None], copy: theirs[None][copy] + 1}
    with pytest.raises(CheckpointError, match=rf"{copy} and {original}.* differ"):
        to_ours(changed, "a.pth")
    with pytest.raises(CheckpointError, match="differ"):
        to_ours({**changed, copy: theirs[None][copy].double()}, "a.pth")
    del changed[copy]
    with pytest.raises(CheckpointError, match=f"1 missing: {copy}"):
        to_ours(changed, "a.pth", partial=True)


def test_a_stage_1_file_is_partial_and_names_the_fusion_as_new(theirs):
    stage_1 = {n: t for n, t in theirs[None].items() if not n.startswith(("llm_", "visual_enc"))}
    with pytest.raises(CheckpointError, match="say partial=true"):
        to_ours(stage_1, "stage1.pth")
    ours, report = to_ours(stage_1, "stage1.pth", partial=True)
    assert report.absent.keys() == {"ViT", "projection", "language model", "fusion"}
    assert "not there: fusion (attention_fusion.…, align_gate.…" in str(report)
    assert same(to_lavis(ours, "ours", partial=True)[0], stage_1)


def test_an_alignment_without_fusion_is_whole_and_ma_lmms_files_know_of_neither(theirs):
    assert to_ours(theirs[None], "mma.pth")[1].absent.keys() == {"fusion"}
    plain = lavis_model.state_dict(blocks=LAYERS, layers=LAYERS)
    ours, report = to_ours(plain, "ma_lmm.pth")
    assert not report.absent
    assert not to_lavis(ours, "ours")[1].copied


@pytest.mark.parametrize(
    ("fusion", "change", "message"),
    [
        (None, {"T1.logit_scale": None}, "1 missing: T1.logit_scale"),
        (None, {"T1.logit_scale": (2,)}, r"T1.logit_scale has shape \(2,\); expected one number"),
        (None, {"T1.text_projection": (3,)}, r"T1.text_projection has .*\(3,\); expected a matrix"),
        (None, {"T1.bias": (3,)}, "1 unexpected: T1.bias"),
        (None, {"llm_proj.weight": (32, 33)}, "33 channels; expected 32 or 56"),
        ("cross_attention", {"fusion_norm.bias": None}, "1 missing: fusion_norm.bias"),
        ("cross_attention", {"fusion_weight": (4, 4)}, r"fusion_weight has shape \(4, 4\)"),
        ("cross_attention", {"residual_proj.bias": (4,)}, "1 unexpected: residual_proj.bias"),
        ("sequence_dimension", {"align_gate.2.bias": None}, "1 missing: align_gate.2.bias"),
    ],
)
def test_what_is_missing_unexpected_or_misshaped_is_named(theirs, fusion, change, message):
    state = dict(theirs[fusion])
    for name, shape in change.items():
        state.pop(name) if shape is None else state.update({name: torch.zeros(shape)})
    with pytest.raises(CheckpointError, match=message):
        to_ours(state, "a.pth", partial=True)


def test_a_fusion_without_its_alignment_is_refused(theirs):
    plain = {
        name: tensor
        for name, tensor in theirs["cross_attention"].items()
        if not name.startswith(("T1.", "clip_text")) and "clip4qformer" not in name
    }
    with pytest.raises(CheckpointError, match=r"unexpected: align_proj\.bias"):
        to_ours(plain, "a.pth", partial=True)


@pytest.mark.parametrize(
    "ours",
    [
        ["alignment=info_nce"],
        ["alignment=mma_code", "alignment.projection_bias=true"],
        ["alignment=mma_code", "alignment.levels=[low,high,cross]"],
        ["alignment=mma_code", "alignment.levels=[high]"],
        ["alignment=mma_code", "alignment.shared_temperature=true"],
        ["alignment=mma_code", "alignment.temperature.learnable=false"],
    ],
    ids=lambda choices: choices[-1],
)
def test_an_alignment_of_ours_is_left_out_and_a_fusion_that_reads_it_refused(ours):
    parts = tiny_backbone(*ours).state_dict()
    state = {n: t for n, t in parts.items() if not n.startswith(("llm", "vision.encoder"))}
    back, report = to_lavis(state, "ours", partial=True)
    left_out = {name: why for name, why in report.left_out.items() if name.startswith("alignment.")}
    assert left_out.keys() == {name for name in state if name.startswith("alignment.")}
    assert "takes no part in answering" in next(iter(left_out.values()))
    assert not any(name.startswith(("T1", "clip")) or "clip4" in name for name in back)
    for fusion, message in (
        ("cross_attention", "unexpected: vision.fusion.align_projection"),
        ("sequence_dimension", "unexpected: vision.fusion.align_projection"),
        ("feature_channel", "projection .* reads .* channels"),
    ):
        fused = tiny_backbone(*ours, f"fusion={fusion}").state_dict()
        state = {n: t for n, t in fused.items() if not n.startswith(("llm", "vision.encoder"))}
        with pytest.raises(CheckpointError, match=message):
            to_lavis(state, "ours", partial=True)


def test_a_trained_fusion_of_ours_is_refused_beside_mmas_alignment():
    state = tiny_backbone("alignment=mma_code", "fusion=query_to_visual").state_dict()
    state = {n: t for n, t in state.items() if not n.startswith(("llm", "vision.encoder"))}
    with pytest.raises(CheckpointError, match=r"unexpected: vision\.fusion\.") as refused:
        to_lavis(state, "ours", partial=True)
    assert "missing" not in str(refused.value)


def test_a_narrower_projection_is_laid_over_the_first_columns(theirs, folder, tmp_path, caplog):
    ours, _ = to_ours(theirs[None], "mma.pth")
    save_file(ours, tmp_path / "mma.safetensors")
    torch.manual_seed(5)
    wide = model(folder, "fusion=feature_channel")
    before = wide.vision.projector.weight.detach().clone()
    with caplog.at_level(logging.INFO):
        WeightFile(tmp_path / "mma.safetensors").load(wide, ["vision.projector", "alignment"])
    assert torch.equal(wide.vision.projector.weight[:, :WIDTH], theirs[None]["llm_proj.weight"])
    assert torch.equal(wide.vision.projector.weight[:, WIDTH:], before[:, WIDTH:])
    assert torch.equal(wide.vision.projector.bias, theirs[None]["llm_proj.bias"])
    widened = f"vision.projector.weight of {tmp_path}/mma.safetensors has {WIDTH} columns"
    assert widened in caplog.text

    whole, _ = to_ours(theirs["feature_channel"], "mff.pth")
    save_file(whole, tmp_path / "mff.safetensors")
    WeightFile(tmp_path / "mff.safetensors").load(wide, ["vision.projector"])
    assert torch.equal(wide.vision.projector.weight, theirs["feature_channel"]["llm_proj.weight"])
    ours["vision.projector.weight"] = torch.zeros(WIDTH, 40)
    save_file(ours, tmp_path / "other.safetensors")
    message = r"vision.projector.weight \(32, 40\) instead of \(32, 56\)"
    with pytest.raises(CheckpointError, match=message):
        WeightFile(tmp_path / "other.safetensors").load(wide, ["vision.projector"])
