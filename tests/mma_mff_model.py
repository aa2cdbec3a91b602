"""MMA-MFF on `lavis_model`: its alignment, its three fusions and their losses, by its names.

The equations are written out as its code has them, one row, one frame, one head at a time; nothing
of the library is used. A state dict holds every copy of a tensor that its modules share.
"""

import math

import torch

import lavis_model
from lavis_model import attend, linear, looks, norm, number_of_layers, words

FUSIONS = ("cross_attention", "feature_channel", "sequence_dimension")
ENDS = ("text_projection", "qformer_projection", "logit_scale")
EMBEDDINGS = "Qformer.bert.embeddings"
FUSION_HEADS = 8
SMOOTHING = 0.1


def state_dict(fusion=None, aligned=24, **sizes):
    """Every name of a whole model with that fusion, or with none, as in stage 1 and in MMA."""
    state = lavis_model.state_dict(**sizes)
    generator = torch.Generator().manual_seed(1)
    llm, width = state["llm_proj.weight"].shape

    def drawn(*shape, around=0.0):
        return around + 0.2 * torch.randn(shape, generator=generator)

    def alignment():
        matrices = {f"{name}_projection": drawn(width, aligned) for name in ("text", "qformer")}
        return matrices | {"logit_scale": drawn(around=math.log(1 / 0.07))}

    def layer(name, out, into):
        return {f"{name}.weight": drawn(out, into), f"{name}.bias": drawn(out)}

    state |= {f"T1.{end}": tensor for end, tensor in alignment().items()}
    cross = alignment()
    for n in range(number_of_layers(state)):
        stem = f"Qformer.bert.encoder.layer.{n}.clip4qformer"
        state |= {f"{stem}.{end}": tensor for end, tensor in cross.items()}
    state |= {
        name.replace(EMBEDDINGS, "clip_text_embedding"): tensor
        for name, tensor in state.items()
        if name.startswith(EMBEDDINGS)
    }
    if fusion == "feature_channel":
        state["llm_proj.weight"] = drawn(llm, width + aligned)
    elif fusion is not None:
        state |= layer("align_proj", width, aligned) | {"fusion_weight": drawn(around=0.5)}
    if fusion == "cross_attention":
        attention = layer("attention_fusion.in_proj", 3 * width, width)
        state |= {name.replace("proj.", "proj_"): tensor for name, tensor in attention.items()}
        state |= layer("attention_fusion.out_proj", width, width)
        state |= {"fusion_norm.weight": drawn(width, around=1.0), "fusion_norm.bias": drawn(width)}
    elif fusion == "sequence_dimension":
        state |= layer("align_gate.0", width // 4, width) | layer("align_gate.2", width, width // 4)
        state |= layer("residual_proj", width, width)
    return state


def leaves(state, dtype=torch.float64):
    """The weights to differentiate by; what shares a tensor in the state shares a leaf.

    What is frozen takes no gradient.
    """
    made = {
        id(tensor): tensor.to(dtype, copy=True).requires_grad_(not lavis_model.frozen(name))
        for name, tensor in state.items()
        if tensor.is_floating_point()
    }
    return {name: made.get(id(tensor), tensor) for name, tensor in state.items()}


def watch(w, films, prompts, bank):
    """Of each film, what `lavis_model.looks` gives of each of its frames."""
    dtype = w["query_tokens"].dtype
    return [
        list(looks(w, film.to(dtype), ids, bank)) for film, ids in zip(films, prompts, strict=True)
    ]


def alignment_losses(w, seen, texts, *, layers, middle=True):
    """L_high and L_cross of what `watch` gave; `texts` are ids (B,L) and a mask (B,L).

    A loss for each role of a frame (first, last and, with `middle`, T//2), over the films that
    have a frame of that role which has no other before, then the mean over roles that any film has.
    """
    text = [_text(w, ids[mask]) for ids, mask in zip(*texts, strict=True)]
    high, cross = [], []
    for role in range(3 if middle else 2):
        rows = [(film, _role(len(film), role)) for film in seen]
        kept = [b for b, (_, t) in enumerate(rows) if t is not None]
        if not kept:
            continue
        frames = [film[t] for film, t in rows if t is not None]
        of_text = [text[b] for b in kept]
        high.append(_t1(w, "T1", [queries for queries, _ in frames], of_text))
        behind = w["query_tokens"].new_zeros(())
        for n in layers:
            if n in frames[0][1]:
                stem = f"Qformer.bert.encoder.layer.{n}.clip4qformer"
                behind = behind + _t1(w, stem, [crossed[n] for _, crossed in frames], of_text)
        cross.append(behind / (len(layers) + 1e-8))
    return sum(high) / len(high), sum(cross) / len(cross)


def _role(length, role):
    """The frame of a film that is its first (0), last (1) or middle one (2), each frame once."""
    chosen = [0, length - 1, length // 2]
    return None if chosen[role] in chosen[:role] else chosen[role]


def _text(w, ids):
    embedded = norm(w, f"{EMBEDDINGS}.LayerNorm", words(w, EMBEDDINGS, ids), 1e-12)
    return sum(embedded) / len(embedded)


def _t1(w, stem, queries, texts):
    """Symmetric cross-entropy of query tokens (K,D) of films and of texts (D,), one a row."""
    film_side = [_unit(_mean(tokens) @ w[f"{stem}.qformer_projection"]) for tokens in queries]
    text_side = [_unit(text @ w[f"{stem}.text_projection"]) for text in texts]
    scale = w[f"{stem}.logit_scale"].exp()
    rows = torch.stack([torch.stack([scale * (v @ t) for t in text_side]) for v in film_side])
    total = 0
    for i in range(len(rows)):
        for logits in (rows[i], rows[:, i]):
            log_p = logits - logits.logsumexp(dim=0)
            total = total - (1 - SMOOTHING) * log_p[i] - SMOOTHING * log_p.mean()
    return total / len(rows) / 2


def llm_inputs(w, seen):
    """What the LLM sees of each film after its last frame, (B,K,Dl), or (B,K+1,Dl)."""
    return torch.stack([linear(w, "llm_proj", _fused(w, film[-1][0])) for film in seen])


def _fused(w, queries):
    a = _unit(_mean(queries) @ w["T1.qformer_projection"])
    if "fusion_norm.weight" in w:
        return _by_attention(w, queries, a)
    if "align_gate.0.weight" in w:
        p = linear(w, "align_proj", a)
        inner = linear(w, "align_gate.0", _mean(queries)).clamp(min=0)
        h = p * torch.sigmoid(linear(w, "align_gate.2", inner))
        h = h + linear(w, "residual_proj", h)
        return torch.cat([queries, (torch.sigmoid(w["fusion_weight"]) * h)[None]])
    if w["llm_proj.weight"].shape[1] > queries.shape[1]:
        return torch.stack([torch.cat([query, a]) for query in queries])
    return queries


def _by_attention(w, queries, a):
    keys = torch.stack([linear(w, "align_proj", a)] * len(queries))
    c = attention(w, queries, keys)
    share = torch.sigmoid(w["fusion_weight"])
    return norm(w, "fusion_norm", share * queries + (1 - share) * c + queries, 1e-5)


def attention(w, queries, keys):
    """The multi-head attention of the cross-attention fusion, whose keys are its values."""
    matrices = w["attention_fusion.in_proj_weight"].chunk(3)
    biases = w["attention_fusion.in_proj_bias"].chunk(3)
    sources = (queries, keys, keys)
    parts = [x @ m.T + b for x, m, b in zip(sources, matrices, biases, strict=True)]
    return linear(w, "attention_fusion.out_proj", attend(*parts, heads=FUSION_HEADS))


def _mean(tokens):
    return sum(tokens) / len(tokens)


def _unit(vector):
    return vector / (vector * vector).sum().sqrt()
