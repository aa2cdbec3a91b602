"""LLaMA-VID's weights: key by key there and back, and the published equations on both sides."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import llama_vid_model
import small_instructblip
from mmavlm.core.errors import CheckpointError
from mmavlm.run import build_backbone
from mmavlm.weights.convert import convert
from mmavlm.weights.lavis import to_lavis, to_ours
from support import composed, random_batch

LLM = 48
POSITIONS = "vision.frame_positions.weight"
BRANCH = ["temporal=context_content"]


@pytest.fixture(scope="module")
def theirs():
    return llama_vid_model.state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small InstructBLIP, and a Llama of another width beside it."""
    folder = small_instructblip.save(tmp_path_factory.mktemp("instructblip"), layers=4)
    config = LlamaConfig(
        hidden_size=LLM, intermediate_size=2 * LLM, num_hidden_layers=4, num_attention_heads=4,
        vocab_size=small_instructblip.VOCABULARY,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "llama")
    small_instructblip.save_tokenizer(folder / "llama")
    return folder


def overrides(folder):
    sizes = small_instructblip.overrides(folder, layers=4)
    return [
        "model=llama_vid", *sizes[1:], f"llm.pretrained={folder}/llama", "llm.chat_template=none",
        "alignment=none", *BRANCH,
    ]  # fmt: skip


def same(found, expected):
    assert found.keys() == expected.keys()
    return all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def weights_of(state):
    return {n: t for n, t in state.items() if not n.endswith(llama_vid_model.BUFFERS)}


@pytest.mark.parametrize("kind", ["mlp2x_gelu", "linear"])
@pytest.mark.parametrize("bert", [False, True], ids=["Q-Former", "BERT"])
def test_all_of_a_model_goes_there_and_back_bit_by_bit(kind, bert):
    theirs = llama_vid_model.state_dict(kind=kind, bert=bert)
    ours, report = to_ours(theirs, "a.bin")
    assert not report.absent
    assert len(report.mapped) + 2 * len(report.fused) + len(report.left_out) == len(theirs)
    back, _ = to_lavis(ours, "a.safetensors")
    assert same(back, weights_of(theirs))
    assert same(to_ours(back, "b.bin")[0], ours)


def test_the_converted_names_are_those_of_the_whole_model(theirs, folder):
    ours, _ = to_ours(theirs, "a.bin")
    model = build_backbone(composed(*overrides(folder)))
    of_encoder = "vision.encoder.vision_model.embeddings.position_embedding"
    shapes = {n: t.shape for n, t in model.state_dict().items() if n != POSITIONS}
    assert {n: t.shape for n, t in ours.items()} == shapes
    assert of_encoder in shapes
    back, report = to_lavis(model.state_dict(), "ours")
    assert back.keys() == weights_of(theirs).keys()
    assert report.left_out[POSITIONS].startswith("zeros")


def test_a_berts_converted_names_are_those_of_the_model(folder):
    theirs = llama_vid_model.state_dict(bert=True)
    ours = {n: t.shape for n, t in to_ours(theirs, "a.bin")[0].items() if "vision.temporal" in n}
    words = f"prompt_tokenizer.pretrained={folder}"
    settings = [
        *overrides(folder), "temporal=context_content_bert", "pretrained=null", words,
        f"encoder.pretrained={folder}",
    ]  # fmt: skip
    model = build_backbone(composed(*settings))
    found = {n: t.shape for n, t in model.state_dict().items() if "vision.temporal" in n}
    assert ours == found


@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_on_a_converted_folder_we_compute_what_the_paper_says(
    theirs, folder, tmp_path, shards, ending
):
    """EVA's ViT, LayerNorm, Q-Former, context attention, means of patches, both projections."""
    source = saved(theirs, tmp_path / "published", shards, ending)
    convert(source, tmp_path / "ours.safetensors")
    weights = f"init.weights={tmp_path}/ours.safetensors"
    model = build_backbone(composed(*overrides(folder), weights)).eval()
    batch = random_batch((3, 2), targets=("comedy", "comedy"))
    pixels = (batch.frames.float() - model.vision.encoder.mean) / model.vision.encoder.std
    films = [film[mask] for film, mask in zip(pixels, batch.frame_mask, strict=True)]
    tokens = model.vision.prompt_tokenizer.encode(batch.views.guides)
    guides = [ids[mask] for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]
    with torch.no_grad():
        found = model.video_tokens(model.vision.remember(model.watch(batch)))
    for row, expected in enumerate(llama_vid_model.video_tokens(theirs, films, guides)):
        difference = (found[row, : len(expected)] - expected).abs().max()
        assert difference / expected.abs().max() < 1e-5


def saved(state, folder, shards, ending):
    """A folder as transformers writes it, in one file or in two."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llava"}))
    names, stem = list(state), "model" if ending == "safetensors" else "pytorch_model"
    half = len(names) // 2 if shards else len(names)
    parts = [names[:half], names[half:]] if shards else [names]
    of_file = {}
    for n, part in enumerate(parts):
        file = f"{stem}-{n}.{ending}" if shards else f"{stem}.{ending}"
        tensors = {name: state[name].contiguous() for name in part}
        if ending == "bin":
            torch.save(tensors, folder / file)
        else:
            save_file(tensors, folder / file)
        of_file |= dict.fromkeys(part, file)
    if shards:
        index = {"metadata": {}, "weight_map": of_file}
        (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index))
    return folder


def test_the_way_back_gives_a_file_that_transformers_can_read(theirs, tmp_path):
    ours = to_ours(theirs, "a.bin")[0]
    save_file({n: t.contiguous() for n, t in ours.items()}, tmp_path / "ours.safetensors")
    convert(tmp_path / "ours.safetensors", tmp_path / "pytorch_model.bin")
    stored = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
    assert same(stored, weights_of(theirs))


def test_what_the_first_stage_saves_converts_only_if_told_and_names_what_is_not_there(
    theirs, folder, tmp_path
):
    starts = ("model.mm_projector.", "model.vlm_att_")
    adapter = {n: t for n, t in theirs.items() if n.startswith(starts)}
    with pytest.raises(CheckpointError, match=r"not there: ViT \(model.vision_tower"):
        to_ours(adapter, "mm_projector.bin")
    torch.save(adapter, tmp_path / "mm_projector.bin")
    report = convert(tmp_path / "mm_projector.bin", tmp_path / "ours.safetensors", partial=True)
    assert set(report.absent) == {
        "ViT", *(f"language model, {p}" for p in ("embeddings", "layers", "last norm", "head"))
    }  # fmt: skip
    weights = f"init.weights={tmp_path}/ours.safetensors"
    model = build_backbone(composed(*overrides(folder), weights))
    stored = load_file(tmp_path / "ours.safetensors")
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in stored.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.vlm_att_encoder.bert.pooler.weight": 1}, "1 unexpected: model.vlm_att_encoder"),
        ({"image_pe.weight": 1}, "do not fit LLaMA-VID's names.*\n.*unexpected: image_pe.weight"),
        ({"model.mm_projector.2.bias": None}, "1 missing: model.mm_projector.2.bias"),
        ({"model.vlm_att_key_projector.bias": None}, "missing: model.vlm_att_key_projector.bias"),
        (
            {"model.vision_tower.vision_tower.blocks.1.attn.v_bias": None},
            "holds .*blocks.1.attn.q_bias but not .*v_bias: the file is damaged",
        ),
    ],
)
def test_a_name_too_many_or_too_few_is_an_error(theirs, change, message):
    state = dict(theirs)
    for name, size in change.items():
        state.pop(name, None)
        if size is not None:
            state[name] = torch.zeros(size)
    with pytest.raises(CheckpointError, match=message):
        to_ours(state, "a.bin", partial=True)


def test_what_llama_vid_cannot_hold_is_refused_on_the_way_back(theirs):
    ours, _ = to_ours(theirs, "a.bin")
    back, report = to_lavis({**ours, "alignment.x": torch.zeros(1)}, "ours")
    assert same(back, weights_of(theirs))
    assert list(report.left_out) == ["alignment.x"]
    for name in (POSITIONS, "vision.norm.weight"):
        with pytest.raises(CheckpointError, match=rf"LLaMA-VID's model:\n.*unexpected: {name}"):
            to_lavis({**ours, name: torch.ones(2)}, "ours")
