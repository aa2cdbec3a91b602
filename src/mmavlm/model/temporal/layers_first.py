"""Many frames at once, layer by layer, where nothing but the state after the last one is wanted.

What a layer banks of a frame is its input, which no deeper layer has a part in. So the first layer
can look at all frames before the second one looks at any. Then a layer's weights are read once for
all of them and its products are large; only banking and attention go frame by frame. The results
are those of the frame loop.

Without dropout the first layer's input is the same at every frame, and so is all that it banks. To
read one entry many times is to read it once: its self-attention is that of one frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from torch import Tensor

from mmavlm.model.few_queries import Bank, KeyValue
from mmavlm.model.memory.carried import Carried
from mmavlm.model.memory.slots import Move
from mmavlm.model.qformer import Banks, QFormer, QFormerLayer
from mmavlm.model.temporal.live import LiveState


def layers_first(
    qformer: QFormer,
    state: LiveState,
    frame_tokens: Tensor,
    masks: Tensor,
) -> LiveState:
    """The state after T frames (B,T,P,Dv) with masks (B,T); the banks of `state` are written over.

    Runs without gradient; the banks must not have to grow.
    """
    num_queries, last = state.video_tokens.shape[1], len(qformer.layers) - 1
    moves = []
    for tokens, active in zip(frame_tokens.unbind(1), masks.unbind(1), strict=True):
        moves.append(state.visual.make_room(active))
        state.visual.take(moves[-1], tokens)

    hidden = qformer.embeddings.dropout(state.hidden.expand(len(moves), -1, -1, -1))
    stretches = [
        (stretch, [move.of(positions=stretch) for move in moves]) for stretch in state.stretches()
    ]
    carried = iter(state.visual_keys)
    for i, layer in enumerate(qformer.layers):
        banks: Banks = [_query_banks(state, i, layer, hidden, masks)]
        visual: Banks = ()
        if layer.crossattention is not None:
            projected = layer.crossattention.project(frame_tokens)
            visual = [
                _visual_banks(state, kept, moved, stretch, projected)
                for kept, (stretch, moved) in zip(next(carried), stretches, strict=True)
            ]
        if i == last:  # what comes out of it is not banked, so that of the last frame will do
            banks, visual = _of_the_last_frame(banks), _of_the_last_frame(visual)
            hidden = hidden[-1:]
        if i == 0 and not _drops(qformer, layer):
            hidden = _read_once(state, layer, banks).expand_as(hidden)
        else:
            hidden = layer.attention.over_frames(hidden, banks)
        hidden = layer.over_frames(hidden, num_queries, visual)
    state.query.steps += len(moves)
    return state.seen(masks[:, -1], hidden[-1, :, :num_queries])


def _drops(qformer: QFormer, layer: QFormerLayer) -> bool:
    return qformer.training and qformer.embeddings.dropout.p + layer.attention.dropout > 0


def _read_once(state: LiveState, layer: QFormerLayer, stretches: Banks) -> Tensor:
    """What the first layer's self-attention gives at every frame, (B,N,D); banks its entries."""
    for banks in stretches:
        deque(banks, maxlen=0)
    return layer.attention(state.hidden, layer.attention.project(state.hidden), state.mask)


def _of_the_last_frame(stretches: Banks) -> Banks:
    return [deque(banks, maxlen=1) for banks in stretches]


def _visual_banks(
    state: LiveState, kept: Carried, moves: Sequence[Move], stretch: slice, projected: KeyValue
) -> Iterator[Bank]:
    """The keys and values of a layer's cross-attention at each frame, at a stretch of positions.

    `projected` holds those of the frames (B,T,h,P,D/h) at all positions.
    """
    keys, values = (part[..., stretch, :] for part in projected)
    for t, move in enumerate(moves):
        kept.merge(move)
        banked = kept.put(move, (keys[:, t], values[:, t]))
        yield (banked[0], banked[1]), state.visual_mask(move)


def _query_banks(
    state: LiveState, i: int, layer: QFormerLayer, hidden: Tensor, masks: Tensor
) -> Iterator[Bank]:
    """The keys and values of layer `i` at each frame, whose inputs (T,B,N,D) are banked."""
    rows = state.rows(i)
    bank, kept = state.query.part(rows), state.query_keys.part(rows)
    entries = zip(hidden, *layer.attention.project(hidden), masks.unbind(1), strict=True)
    for tokens, keys, values, active in entries:
        move = bank.make_room(active)
        bank.take(move, tokens)
        kept.merge(move)
        banked = kept.put(move, (keys, values))
        yield (banked[0], banked[1]), state.key_mask(move)
