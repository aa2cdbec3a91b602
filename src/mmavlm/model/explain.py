"""What one answer rests on: what the memory holds, what is attended to, what must not be missing.

Shapes of one film: T its real frames, S the slots that hold something, K query tokens, C layers
with cross-attention, R stretches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmavlm.core.batch import Batch
from mmavlm.core.errors import ConfigError, VideoError
from mmavlm.core.interfaces import MediaTokens, PatchGrid
from mmavlm.model.backbone import VideoLanguageModel
from mmavlm.model.memory import frame_shares
from mmavlm.model.otherwise import Otherwise, Say, otherwise
from mmavlm.model.temporal import MemoryQFormer, State, last_look
from mmavlm.model.watched import Watched

STRETCHES = 8
GREY = 128  # of 0 to 255, halfway between black and white


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One answer about one film, and what it rests on; tensors are float32 on the CPU.

    `times_s` (T,) are the moments of the frames, `frames` uint8 (T,H,W,3) the frames themselves,
    or None where the model read cached features.

    `slots` (S,T) is how much of each frame's tokens every slot holds, from the oldest slot to the
    newest: token positions merge each by itself. A frame's parts add up to 1, or to 0 if it was
    forgotten.
    `slot_attention` (C,K,S) is the attention of the query tokens at the last frame, the mean over
    heads; `frame_attention` (C,K,T) is the same handed on to the frames that the slots are means
    of. Both add up to 1 for every query. What a fusion behind the Q-Former looks at is not in it.
    `patch_attention` (T,P) is the same of the frames' tokens, the mean over layers and queries,
    and adds up to 1; `patch_grid` says where in a frame these tokens lie, None where it is unknown.

    `log_prob` is that of the answer and its end given the whole film; `stretches` are R spans of
    frames (first, stop), and `changes` (R,) by how much the log-probability changes when the model
    is not shown them. A negative change says that the stretch speaks for the answer.
    `change_when_grey` is the same for a film as long whose every frame is plain grey, None where
    nothing was hidden or there is no encoder to see grey with, as for cached features.
    `otherwise` is what the model says without the film and with its frames shuffled.
    """

    task: str
    video_id: str
    prompt: str
    answer: str
    truth: str
    times_s: Tensor
    frames: NDArray[np.uint8] | None
    slots: Tensor
    slot_attention: Tensor
    frame_attention: Tensor
    patch_attention: Tensor
    patch_grid: PatchGrid | None
    log_prob: float
    stretches: tuple[tuple[int, int], ...]
    changes: Tensor
    change_when_grey: float | None
    otherwise: tuple[Otherwise, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Everything but the frames as plain values, ready for JSON."""
        told = {name: value for name, value in vars(self).items() if name != "frames"}
        grid = None if self.patch_grid is None else asdict(self.patch_grid)
        plain = {n: v.tolist() if isinstance(v, Tensor) else v for n, v in told.items()}
        others = [asdict(other) for other in self.otherwise]
        return {**plain, "patch_grid": grid, "otherwise": others}


@torch.no_grad()
def explain(
    backbone: VideoLanguageModel,
    batch: Batch,
    answers: Sequence[str],
    *,
    stretches: int = STRETCHES,
    say: Say | None = None,
) -> list[Explanation]:
    """Explain one answer to each row of `batch`, given by a model in eval mode.

    Each film is cut into so many stretches of about the same number of frames, which are left out
    one at a time, and then shown as grey throughout (occlusion: Zeiler and Fergus, 2014); with 0
    nothing is left out. Takes a pass through memory and LLM for each. `say` is how the model
    answers other views of the film (see `otherwise`).

    Raises:
        ConfigError: if an answer is empty, a film cannot be cut into so many stretches, or the
            encoder's grid does not fit its tokens.
        VideoError: if a film has no frames.
        ValueError: if there is not one answer a row.
    """
    _check(batch, answers, stretches)
    temporal = backbone.vision.temporal
    if not isinstance(temporal, MemoryQFormer):
        raise ConfigError(
            "an explanation shows what the memory holds, and this model has none; choose "
            "temporal=memory_qformer, or leave out explain"
        )
    encoded = backbone.encoded(batch)
    watched = backbone.watch(encoded)
    state = cast(State, backbone.vision.remember(watched))
    shares = frame_shares(
        temporal.visual_memory,
        state.visual_bank,
        watched.frame_tokens,
        batch.frame_mask,
    )
    look = last_look(temporal, state)
    stretch = stretch_of_frames(batch.frame_mask, stretches)
    hidden = [torch.zeros_like(batch.frame_mask), *(stretch == r for r in range(stretches))]
    scores = log_probs_without(backbone, watched, batch, answers, torch.stack(hidden))
    grey = None
    if stretches and batch.frames is not None:
        nothing_hidden = hidden[0][None]
        film = backbone.watch(_grey(backbone, batch))
        grey = log_probs_without(backbone, film, batch, answers, nothing_hidden)[0]
    grid = _grid_of(backbone, watched.frame_tokens.shape[2])
    others = otherwise(backbone, encoded, answers, say)
    found = _Found(state.visual_bank.counts, shares, look, stretch, scores, grey, grid, others)
    return [_explained(batch, row, answer, found) for row, answer in enumerate(answers)]


def has_memory(backbone: VideoLanguageModel) -> bool:
    """Whether there is a memory whose slots an explanation can show."""
    return isinstance(backbone.vision.temporal, MemoryQFormer)


@dataclass(frozen=True)
class _Found:
    """What was seen of all rows: counts (B,S,P), shares (B,S,P,T), look, stretch (B,T), scores.

    Scores (1+R,B) are of the whole film and without each stretch, `grey` (B,) of a grey film.
    """

    counts: Tensor
    shares: Tensor
    look: Tensor
    stretch: Tensor
    scores: Tensor
    grey: Tensor | None
    grid: PatchGrid | None
    otherwise: list[tuple[Otherwise, ...]]


def _explained(batch: Batch, row: int, answer: str, found: _Found) -> Explanation:
    """What the answer to one row rests on, padding and empty slots left out."""
    real = batch.frame_mask[row]
    filled = found.counts[row, :, 0] > 0
    part, attention = found.shares[row, filled][..., real], found.look[row][:, :, filled].float()
    held = part * found.counts[row, filled][..., None]  # tokens, not shares
    shown = None if batch.frames is None else batch.frames[row, real].permute(0, 2, 3, 1)
    of_frame = found.stretch[row, real].tolist()
    spans = [(of_frame.index(r), of_frame.count(r)) for r in range(len(found.scores) - 1)]
    return Explanation(
        task=batch.task[row],
        video_id=batch.video_id[row],
        prompt=batch.prompt[row],
        answer=answer,
        truth=batch.target[row],
        times_s=batch.timestamps_s[row, real].cpu(),
        frames=None if shown is None else shown.cpu().numpy(),
        slots=held.mean(dim=1).cpu(),
        slot_attention=attention.sum(dim=-1).cpu(),
        frame_attention=torch.einsum("cksp,spt->ckt", attention, part).cpu(),
        patch_attention=torch.einsum("sp,spt->tp", attention.mean(dim=(0, 1)), part).cpu(),
        patch_grid=found.grid,
        log_prob=float(found.scores[0, row]),
        stretches=tuple((first, first + length) for first, length in spans),
        changes=(found.scores[1:, row] - found.scores[0, row]).float().cpu(),
        change_when_grey=None
        if found.grey is None
        else float(found.grey[row] - found.scores[0, row]),
        otherwise=found.otherwise[row],
    )


def _grey(backbone: VideoLanguageModel, batch: Batch) -> Batch:
    """The same questions about films of as many frames, all of them grey; one is encoded."""
    assert batch.frames is not None  # asked for only then
    rows, frames = batch.frames.shape[:2]
    seen = backbone.vision.encoder(torch.full_like(batch.frames[0, :1], GREY))
    return replace(batch, frames=None, features=seen[None].expand(rows, frames, -1, -1))


def _grid_of(backbone: VideoLanguageModel, num_tokens: int) -> PatchGrid | None:
    """The grid of the encoder's patches; none where it says none, as for cached features."""
    encoder = backbone.vision.encoder
    grid: PatchGrid | None = getattr(encoder, "patch_grid", None)
    if grid is not None and not 0 < grid.stop <= num_tokens:
        raise ConfigError(
            f"{type(encoder).__name__}.patch_grid is {grid}, which does not fit the "
            f"{num_tokens} tokens of a frame; mend it, or set it to None"
        )
    return grid


def stretches_of(frames: int, at_most: int = STRETCHES) -> int:
    """Into how many stretches a film of so many frames is cut, if none are asked for."""
    return min(at_most, frames) if frames > 1 else 0


def stretch_of_frames(frame_mask: Tensor, stretches: int) -> Tensor:
    """The number of the stretch, from 0, that each frame belongs to: int64 (B,T), −1 on padding."""
    number = frame_mask.cumsum(dim=1) - 1
    total = frame_mask.sum(dim=1, keepdim=True)
    return (number * stretches // total).masked_fill(~frame_mask, -1)


@torch.no_grad()
def log_probs_without(
    backbone: VideoLanguageModel,
    watched: Watched,
    batch: Batch,
    answers: Sequence[str],
    hidden: Tensor,
) -> Tensor:
    """Log-probability of each row's answer with frames hidden: bool (R,B,T) → (R,B).

    A hidden frame is passed over, as padding is; the others keep the positions they have in the
    film. Raises ConfigError if the model has no LLM.
    """
    vision = backbone.vision
    seen = [vision.remember(replace(watched, frame_mask=watched.frame_mask & ~h)) for h in hidden]
    tokens = torch.stack([backbone.video_tokens(state) for state in seen])
    llm = backbone.llm
    assert llm is not None  # video_tokens refuses a model without
    return torch.cat(
        [
            llm.rank(
                [batch.conversations[row].asked] * len(hidden),
                MediaTokens(tokens[:, row], [1] * len(hidden)),
                [answer],
            )
            for row, answer in enumerate(answers)
        ],
        dim=1,
    )


def _check(batch: Batch, answers: Sequence[str], stretches: int) -> None:
    if len(answers) != len(batch):
        raise ValueError(f"explain: {len(batch)} rows need as many answers, got {len(answers)}")
    if [batch.film_of(row) for row in range(len(batch))] != list(range(len(batch))):
        raise ConfigError(
            "an explanation is of one question about one film, and a row of this batch shows none, "
            "or several; explain such rows one film at a time"
        )
    for video_id, answer in zip(batch.video_id, answers, strict=True):
        if not answer.strip():
            raise ConfigError(
                f"the answer about {video_id} is empty, so there is nothing to explain; give a text"
            )
    for video_id, frames in zip(batch.video_id, batch.frame_mask.sum(dim=1).tolist(), strict=True):
        if frames == 0:
            raise VideoError(f"{video_id} has no frames, so no answer about it can be explained")
        if stretches and not 2 <= stretches <= frames:
            raise ConfigError(
                f"{video_id} was given to the model as {frames} frames, which cannot be cut into "
                f"{stretches} stretches; take 2 to {frames} of them, or 0 to leave nothing out"
            )
