import pytest
import torch
from small_films import QUERIES, STRATEGIES, build, inputs

from mmavlm.model.memory import EpisodicCompressor, MergeAdjacent, TokenMerging
from mmavlm.model.temporal import last_look

OTHERS = [EpisodicCompressor(3), TokenMerging(3)]


def watched_looks(model, tokens, prompt, mask):
    """The weights of every cross-attention at each row's last frame, by watching it all anew.

    Plain products and a softmax, head by head, of what the layers are given while stepping: a list
    of (h,K,V) a row, V the keys that are not masked.
    """
    looks = [[] for _ in mask]
    last = mask.sum(dim=1) - 1

    def note(block, given):
        hidden, (keys, _), key_mask = given
        for row in (last == t).nonzero().flatten().tolist():
            query = block.attention.query(hidden[row]).unflatten(-1, (block.heads, -1))
            heads = [
                (query[:, h] @ keys[row, h, key_mask[row]].T / query.shape[-1] ** 0.5).softmax(-1)
                for h in range(block.heads)
            ]
            looks[row].append(torch.stack(heads))

    blocks = [layer.crossattention for layer in model.qformer.layers if layer.crossattention]
    handles = [block.register_forward_pre_hook(note) for block in blocks]
    model.cache_keys = False
    state = model.start(prompt, tokens[:, 0])
    for t in range(mask.shape[1]):
        state = model.step(state, tokens[:, t], mask[:, t])
    for handle in handles:
        handle.remove()
    return looks


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("ragged", [True, False])
@pytest.mark.parametrize(
    "memory", STRATEGIES + OTHERS, ids=lambda m: f"{type(m).__name__}{m.slots}"
)
@torch.no_grad()
def test_the_look_told_afterwards_is_the_look_that_was_taken(memory, ragged, cached):
    query_memory = MergeAdjacent(3) if memory in OTHERS else memory
    model = build(memory, query_memory, layers=4).eval()
    tokens, prompt, mask = inputs(3, 3, 8, ragged)
    model.cache_keys = cached and memory not in OTHERS
    state = model(tokens, prompt, mask)
    look = last_look(model, state)
    assert look.shape[:3] == (3, 2, QUERIES)
    torch.testing.assert_close(look.sum((-1, -2)), torch.ones(3, 2, QUERIES))
    filled = (state.visual_bank.counts > 0).flatten(1)
    for row, layers in enumerate(watched_looks(model, tokens, prompt, mask)):
        expected = torch.stack(layers).mean(dim=1)
        told = look[row].flatten(2)[..., filled[row]]
        torch.testing.assert_close(told, expected, atol=1e-5, rtol=1e-3)
