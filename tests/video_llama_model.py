"""A small Video-LLaMA by the names of its code, all that a file may hold, and its equations.

The equations are written out as the paper gives them, one film and one frame at a time, on the
names of the state dict. Its ViT, and how its Q-Formers attend, are LAVIS's.
"""

import torch

import lavis_model
from lavis_model import bert_attention, feed, linear, norm, number_of_layers, vit

FRAMES = 32  # rows of its table
VIDEO_LAYERS = 2
TRAINED = ("video_frame_position_embedding.", "video_query_tokens", "video_Qformer.", "llama_proj.")
CLIPS = 8  # rows of its table of clips
HEARD = 24  # the width of what its audio tower gives of a clip
AUDIO = ("audio_position_embedding.", "audio_query_tokens", "audio_Qformer.", "audio_llama_proj.")
BUFFERS = ("position_ids", "inv_freq", "log_logit_scale")


def state_dict(width=32, blocks=4, layers=4, queries=4, llm=32, vocabulary=11):
    """Every name of a whole model without its audio branch, of which buffers are always there."""
    sizes = {"blocks": blocks, "layers": layers, "queries": queries, "vocabulary": vocabulary}
    lavis = lavis_model.state_dict(width=width, llm=llm, **sizes)
    state = {
        name.replace("llm_", "llama_"): tensor
        for name, tensor in lavis.items()
        if not name.startswith(("image_pe.", "Qformer."))
    }
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape, around=0.0):
        return around + 0.2 * torch.randn(shape, generator=generator)

    state["video_query_tokens"] = drawn(1, queries, width)
    state["video_frame_position_embedding.weight"] = drawn(FRAMES, width)
    for start, number, every in (("", layers, 2), ("video_", VIDEO_LAYERS, 1)):
        for name, shape in qformer(f"{start}Qformer.bert", number, every, width):
            state[name] = drawn(*shape, around=float(name.endswith("LayerNorm.weight")))
    for start in ("", "video_", "audio_"):
        state[f"{start}Qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
    for tower in ("audio", "depth", "thermal", "imu"):
        name = f"audio_encoder.modality_postprocessors.{tower}.1.log_logit_scale"
        state[name] = torch.tensor(3.0)
    return state


def audio_branch(width=32, llm=32, queries=3):
    """Every trained name of its audio branch."""
    generator = torch.Generator().manual_seed(2)
    shapes = {
        "audio_position_embedding.weight": (CLIPS, HEARD),
        "audio_query_tokens": (1, queries, width),
        **dict(qformer("audio_Qformer.bert", VIDEO_LAYERS, 1, width, seen_width=HEARD)),
        **dict(_linear("audio_llama_proj", llm, width)),
    }
    return {
        name: float(name.endswith("LayerNorm.weight"))
        + 0.2 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


@torch.no_grad()
def sound_tokens(state, sounds):
    """Embeddings (S,Da) of the clips of each sound → what the LLM hears (B,K,Dl)."""
    w = {name: tensor.double() for name, tensor in state.items()}
    rows = []
    for clips in sounds:
        keys = clips.double() + w["audio_position_embedding.weight"][: len(clips)]
        queries = look(w, "audio_Qformer.bert", w["audio_query_tokens"][0], keys)
        rows.append(linear(w, "audio_llama_proj", queries))
    return torch.stack(rows)


def qformer(bert, layers, every, width, seen_width=None):
    """Names and shapes of a BERT whose word and position embeddings and text path were taken out.

    Every so many layers have cross-attention, to tokens of `seen_width`, or `width`.
    """
    yield from _norm(f"{bert}.embeddings.LayerNorm", width)
    for n in range(layers):
        layer = f"{bert}.encoder.layer.{n}"
        for attention in ("attention", "crossattention")[: 2 if n % every == 0 else 1]:
            for projection in ("query", "key", "value"):
                reads = attention == "crossattention" and projection != "query"
                into = seen_width if reads and seen_width is not None else width
                yield from _linear(f"{layer}.{attention}.self.{projection}", width, into)
            yield from _linear(f"{layer}.{attention}.output.dense", width, width)
            yield from _norm(f"{layer}.{attention}.output.LayerNorm", width)
        yield from _linear(f"{layer}.intermediate_query.dense", 2 * width, width)
        yield from _linear(f"{layer}.output_query.dense", width, 2 * width)
        yield from _norm(f"{layer}.output_query.LayerNorm", width)


def saved(name):
    """Whether the checkpoints of its vision branch hold a name: what is trained, and buffers."""
    return name.startswith(TRAINED) or name.endswith(BUFFERS)


@torch.no_grad()
def video_tokens(state, films):
    """Films of normalised frames (T,3,H,W) → what the LLM sees (B,K,Dl)."""
    w = {name: tensor.double() for name, tensor in state.items()}
    rows = []
    for film in films:
        seen = []
        for t, image in enumerate(film.double()):
            frame = norm(w, "ln_vision", vit(w, image), 1e-5)
            image_queries = look(w, "Qformer.bert", w["query_tokens"][0], frame)
            seen.append(image_queries + w["video_frame_position_embedding.weight"][t])
        queries = look(w, "video_Qformer.bert", w["video_query_tokens"][0], torch.cat(seen))
        rows.append(linear(w, "llama_proj", queries))
    return torch.stack(rows)


def look(w, bert, queries, keys):
    """Queries (K,D) that read keys (L,·) through all layers of a Q-Former → (K,D)."""
    hidden = norm(w, f"{bert}.embeddings.LayerNorm", queries, 1e-12)
    for n in range(number_of_layers(w, bert)):
        layer = f"{bert}.encoder.layer.{n}"
        hidden = bert_attention(w, f"{layer}.attention", hidden, hidden)
        if f"{layer}.crossattention.self.query.weight" in w:
            hidden = bert_attention(w, f"{layer}.crossattention", hidden, keys)
        hidden = feed(w, layer, "_query", hidden)
    return hidden


def _linear(name, out, into):
    yield f"{name}.weight", (out, into)
    yield f"{name}.bias", (out,)


def _norm(name, width):
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
