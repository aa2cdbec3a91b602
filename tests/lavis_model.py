"""A small InstructBLIP with MA-LMM's frame positions by LAVIS's names, and its equations.

The equations are written out as the papers give them, one row, one frame, one head-split at a
time, on the names of the state dict: slow, and nothing of the library is used.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F

HEADS = 4
BANK = 2


def state_dict(width=32, blocks=3, layers=4, tokens=17, vocabulary=11, queries=4, llm=32):
    """Every name of a whole model: ViT, Q-Former with text path, projection, Vicuna, buffers."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def add(name, *shape, around=0.0):
        state[name] = around + 0.2 * torch.randn(*shape, generator=generator)

    def add_linear(name, out, into):
        add(f"{name}.weight", out, into)
        add(f"{name}.bias", out)

    def add_norm(name):
        add(f"{name}.weight", width, around=1.0)
        add(f"{name}.bias", width)

    add("query_tokens", 1, queries, width)
    add("visual_encoder.cls_token", 1, 1, width)
    add("visual_encoder.pos_embed", 1, tokens, width)
    add("visual_encoder.patch_embed.proj.weight", width, 3, 16, 16)
    add("visual_encoder.patch_embed.proj.bias", width)
    for n in range(blocks):
        block = f"visual_encoder.blocks.{n}"
        add_norm(f"{block}.norm1")
        add(f"{block}.attn.q_bias", width)
        add(f"{block}.attn.v_bias", width)
        add(f"{block}.attn.qkv.weight", 3 * width, width)
        add_linear(f"{block}.attn.proj", width, width)
        add_norm(f"{block}.norm2")
        add_linear(f"{block}.mlp.fc1", 2 * width, width)
        add_linear(f"{block}.mlp.fc2", width, 2 * width)
    add_norm("ln_vision")
    state["Qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
    add("Qformer.bert.embeddings.word_embeddings.weight", vocabulary, width)
    add("Qformer.bert.embeddings.position_embeddings.weight", 512, width)
    add_norm("Qformer.bert.embeddings.LayerNorm")
    for n in range(layers):
        layer = f"Qformer.bert.encoder.layer.{n}"
        for attention in ("attention", "crossattention")[: 1 if n % 2 else 2]:
            for projection in ("query", "key", "value"):
                add_linear(f"{layer}.{attention}.self.{projection}", width, width)
            add_linear(f"{layer}.{attention}.output.dense", width, width)
            add_norm(f"{layer}.{attention}.output.LayerNorm")
        for end in ("", "_query"):
            add_linear(f"{layer}.intermediate{end}.dense", 2 * width, width)
            add_linear(f"{layer}.output{end}.dense", width, 2 * width)
            add_norm(f"{layer}.output{end}.LayerNorm")
    add_linear("llm_proj", llm, width)
    add("image_pe.weight", 120, width)
    add("llm_model.model.embed_tokens.weight", vocabulary, llm)
    for n in range(layers):
        layer = f"llm_model.model.layers.{n}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            add(f"{layer}.self_attn.{name}.weight", llm, llm)
        state[f"{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(llm // HEADS // 2)
        add(f"{layer}.mlp.gate_proj.weight", 2 * llm, llm)
        add(f"{layer}.mlp.up_proj.weight", 2 * llm, llm)
        add(f"{layer}.mlp.down_proj.weight", llm, 2 * llm)
        add(f"{layer}.input_layernorm.weight", llm, around=1.0)
        add(f"{layer}.post_attention_layernorm.weight", llm, around=1.0)
    add("llm_model.model.norm.weight", llm, around=1.0)
    add("llm_model.lm_head.weight", vocabulary, llm)
    return state


def frozen(name):
    """Whether MA-LMM's checkpoints leave a parameter out, which they do with frozen ones."""
    buffer = name.endswith(("position_ids", "inv_freq"))
    return name.startswith(("visual_encoder.", "llm_model.")) and not buffer


@torch.no_grad()
def video_tokens(state, films, prompts, bank=BANK):
    """Films of normalised frames (T,3,H,W) and ids of their prompts → what Vicuna sees (B,K,Dl)."""
    state = {name: tensor.double() for name, tensor in state.items()}
    rows = []
    for film, ids in zip(films, prompts, strict=True):
        *_, (queries, _) = looks(state, film.double(), ids, bank)
        rows.append(linear(state, "llm_proj", queries))
    return torch.stack(rows)


def looks(w, film, ids, bank):
    """Each frame's query outputs (K,D), and {layer: queries behind its cross-attention}.

    What is banked carries no gradient, the frame at hand does.
    """
    visual_bank, counts = None, None
    layers = number_of_layers(w)
    query_banks = [None] * layers
    embeddings = "Qformer.bert.embeddings"
    start = torch.cat([w["query_tokens"][0], words(w, embeddings, ids)])
    start = norm(w, f"{embeddings}.LayerNorm", start, 1e-12)
    queries = len(w["query_tokens"][0])
    for t, image in enumerate(film):
        frame = norm(w, "ln_vision", vit(w, image), 1e-5) + w["image_pe.weight"][t]
        past = [] if visual_bank is None else [*visual_bank]
        visual = torch.cat([*past, frame])
        hidden, crossed = start, {}
        for n in range(layers):
            name = f"Qformer.bert.encoder.layer.{n}"
            banked, held = query_banks[n] or ([], [])
            keys = torch.cat([*banked, hidden])
            query_banks[n] = _append(banked, held, hidden.detach(), bank)
            hidden = bert_attention(w, f"{name}.attention", hidden, keys)
            seen, read = hidden[:queries], hidden[queries:]
            if f"{name}.crossattention.self.query.weight" in w:
                seen = crossed[n] = bert_attention(w, f"{name}.crossattention", seen, visual)
            hidden = torch.cat([feed(w, name, "_query", seen), feed(w, name, "", read)])
        visual_bank, counts = _append(visual_bank or [], counts or [], frame.detach(), bank)
        yield hidden[:queries], crossed


def number_of_layers(w, bert="Qformer.bert"):
    """How many layers the Q-Former has."""
    return 1 + max(int(n.split(".")[4]) for n in w if n.startswith(f"{bert}.encoder"))


def words(w, name, ids):
    """Word and position embeddings of a text (L,D), before their LayerNorm."""
    text = w[f"{name}.word_embeddings.weight"][ids]
    return text + w[f"{name}.position_embeddings.weight"][: len(ids)]


def _append(slots, counts, current, length):
    """The slots with one more, and where that is too many, the most similar neighbours merged."""
    slots, counts = [*slots, current], [*counts, torch.ones(len(current)).double()]
    if len(slots) <= length:
        return slots, counts
    merged = [slot.clone() for slot in slots[:-1]]
    numbers = [count.clone() for count in counts[:-1]]
    for p in range(len(current)):
        alike = [F.cosine_similarity(a[p], b[p], dim=0) for a, b in pairwise(slots)]
        at = int(torch.stack(alike).argmax())
        row = [slot[p] for slot in slots]
        held = [count[p] for count in counts]
        total = held[at] + held[at + 1]
        row[at : at + 2] = [(row[at] * held[at] + row[at + 1] * held[at + 1]) / total]
        held[at : at + 2] = [total]
        for slot, number, value, count in zip(merged, numbers, row, held, strict=True):
            slot[p], number[p] = value, count
    return merged, numbers


def vit(w, image):
    patches = F.conv2d(
        image[None], w["visual_encoder.patch_embed.proj.weight"],
        w["visual_encoder.patch_embed.proj.bias"],
        stride=w["visual_encoder.patch_embed.proj.weight"].shape[-1],
    )[0].flatten(1).T  # fmt: skip
    x = torch.cat([w["visual_encoder.cls_token"][0], patches]) + w["visual_encoder.pos_embed"][0]
    blocks = 1 + max(int(n.split(".")[2]) for n in w if n.startswith("visual_encoder.blocks"))
    for n in range(blocks):
        name = f"visual_encoder.blocks.{n}"
        y = norm(w, f"{name}.norm1", x, 1e-6)
        query, key, value = (y @ part.T for part in w[f"{name}.attn.qkv.weight"].chunk(3))
        query, value = query + w[f"{name}.attn.q_bias"], value + w[f"{name}.attn.v_bias"]
        x = x + linear(w, f"{name}.attn.proj", attend(query, key, value))
        y = norm(w, f"{name}.norm2", x, 1e-6)
        x = x + linear(w, f"{name}.mlp.fc2", F.gelu(linear(w, f"{name}.mlp.fc1", y)))
    return x


def bert_attention(w, name, hidden, keys):
    query = linear(w, f"{name}.self.query", hidden)
    key, value = linear(w, f"{name}.self.key", keys), linear(w, f"{name}.self.value", keys)
    mixed = linear(w, f"{name}.output.dense", attend(query, key, value))
    return norm(w, f"{name}.output.LayerNorm", mixed + hidden, 1e-12)


def feed(w, name, end, x):
    inner = F.gelu(linear(w, f"{name}.intermediate{end}.dense", x))
    outer = linear(w, f"{name}.output{end}.dense", inner)
    return norm(w, f"{name}.output{end}.LayerNorm", outer + x, 1e-12)


def attend(query, key, value, heads=HEADS):
    """Softmax attention, head by head."""
    mixed = []
    parts = (x.chunk(heads, dim=1) for x in (query, key, value))
    for q, k, v in zip(*parts, strict=True):
        mixed.append((q @ k.T / q.shape[1] ** 0.5).softmax(dim=1) @ v)
    return torch.cat(mixed, dim=1)


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(w, name, x, eps):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)
