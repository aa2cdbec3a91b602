"""A small LLaMA-VID by the names of its code, and its equations, one film and frame at a time.

Its vision tower and Q-Former are LAVIS's InstructBLIP by other names.
"""

import torch
import torch.nn.functional as F

import lavis_model
from lavis_model import linear, number_of_layers, vit

NAMES = {
    "visual_encoder.": "model.vision_tower.vision_tower.",
    "ln_vision.": "model.vlm_att_ln.",
    "query_tokens": "model.vlm_att_query",
    "Qformer.": "model.vlm_att_encoder.",
    "llm_model.": "",
}
BUFFERS = ("position_ids", "inv_freq")


def state_dict(width=32, blocks=4, layers=4, llm=48, kind="mlp2x_gelu", bert=False):
    """Every name of a whole model, of which buffers are always there."""
    lavis = lavis_model.state_dict(width=width, blocks=blocks, layers=layers, llm=llm)
    state = {}
    for name, tensor in lavis.items():
        start = next((start for start in NAMES if name.startswith(start)), None)
        if start is not None:
            state[NAMES[start] + name.removeprefix(start)] = tensor
    generator = torch.Generator().manual_seed(2)

    def drawn(*shape):
        return 0.2 * torch.randn(shape, generator=generator)

    def add_linear(name, out, into):
        state[f"model.{name}.weight"], state[f"model.{name}.bias"] = drawn(out, into), drawn(out)

    add_linear("vlm_att_projector", width, width)
    add_linear("vlm_att_key_projector", width, width)
    add_linear("vlm_att_val_projector", llm, width)
    if kind == "mlp2x_gelu":
        add_linear("mm_projector.0", llm, width)
        add_linear("mm_projector.2", llm, llm)
    else:
        add_linear("mm_projector", llm, width)
    if bert:
        as_bert(state, width, layers, drawn)
    return state


def as_bert(state, width, layers, drawn):
    """Put a BERT in the Q-Former's place: cross-attention in every layer, one path for all."""
    start = "model.vlm_att_encoder.bert."
    for name in [n for n in state if n.startswith(("model.vlm_att_ln", "model.vlm_att_query"))]:
        del state[name]
    for name in [n for n in state if n.startswith(start) and "_query." in n]:
        del state[name]
    for n in range(layers):
        for name in [k for k in state if k.startswith(f"{start}encoder.layer.0.crossattention.")]:
            other = name.replace("layer.0.", f"layer.{n}.")
            state.setdefault(other, drawn(*state[name].shape))
    state[f"{start}embeddings.token_type_embeddings.weight"] = drawn(2, width)
    state["model.vlm_att_bert_proj.weight"] = drawn(width, width)
    state["model.vlm_att_bert_proj.bias"] = drawn(width)


@torch.no_grad()
def video_tokens(state, films, guides):
    """Films of normalised frames (T,3,H,W) and ids of guides → what the LLM sees (B,T·2,Dl)."""
    lavis = {}
    for name, tensor in state.items():
        start = next((start for start, new in NAMES.items() if new and name.startswith(new)), None)
        if start is not None:
            lavis[start + name.removeprefix(NAMES[start])] = tensor.double()
    w = {name: tensor.double() for name, tensor in state.items()} | lavis
    assert number_of_layers(w) > 1
    w["image_pe.weight"] = torch.zeros(1, len(w["ln_vision.bias"])).double()
    rows = []
    for film, ids in zip(films, guides, strict=True):
        frames = []
        for image in film.double():
            x = vit(w, image)[1:]
            ((seen, _),) = lavis_model.looks(w, image[None], ids, 1)
            query = linear(w, "model.vlm_att_projector", seen)
            key = linear(w, "model.vlm_att_key_projector", x)
            found = (query @ key.T / x.shape[1] ** 0.5).softmax(dim=1) @ x
            context = linear(w, "model.vlm_att_val_projector", found.mean(dim=0))
            hidden = F.gelu(linear(w, "model.mm_projector.0", x.mean(dim=0)))
            frames += [context, linear(w, "model.mm_projector.2", hidden)]
        rows.append(torch.stack(frames))
    return rows
