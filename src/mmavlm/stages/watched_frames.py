"""The frames of films that run: their labels, and what was scored of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mmavlm.core.batch import Batch
from mmavlm.core.streams import frames_of, labels_of, silent
from mmavlm.metrics.duet.watched import Said, Watched
from mmavlm.model.heads import FrameHeads, label_tensor
from mmavlm.model.llm.stream_rows import FrameAt, StreamRead


def as_watched(batch: Batch) -> Batch:
    """The batch with conversations in which nothing was answered."""
    return replace(batch, conversations=[silent(talk) for talk in batch.conversations])


def labels_of_frames(batch: Batch, frames: Sequence[FrameAt], names: tuple[str, ...]) -> Tensor:
    """Labels (N,S) of frames, by head; `IGNORED` where there is none."""
    known: dict[tuple[int, int], dict[str, list[int]]] = {}
    labels = []
    times = _times_s(batch)
    for talk, turn, frame in frames:
        stream = batch.conversations[talk].turns[turn]
        if (talk, turn) not in known:
            known[talk, turn] = labels_of(stream, times[talk])
        place = frame - frames_of(stream)[0]
        labels.append({head: values[place] for head, values in known[talk, turn].items()})
    return label_tensor(names, labels, batch.timestamps_s.device)


def watched_films(
    batch: Batch, read: StreamRead, scores: Tensor, names: tuple[str, ...]
) -> list[Watched]:
    """What was scored (N,S) of each conversation, frame by frame."""
    values = scores.tolist()
    times = _times_s(batch)
    by_talk: dict[int, dict[int, list[float]]] = {}
    for at, row in zip(read.frames, values, strict=True):
        by_talk.setdefault(at.talk, {})[at.frame] = row
    found = []
    for talk, frames in by_talk.items():
        times_s, order = times[talk], sorted(frames)
        found.append(
            Watched(
                batch.item_id[talk],
                max(times_s),
                tuple(times_s[frame] for frame in order),
                {name: tuple(frames[f][n] for f in order) for n, name in enumerate(names)},
                queries=tuple(_queries(batch, talk, times_s)),
            )
        )
    return found


def scored_film(film: Watched, heads: FrameHeads) -> Watched:
    """A film with the probabilities that heads give to the margins it holds for scores."""
    device = heads.temperature.device
    scores = {
        name: tuple(heads.probabilities(torch.tensor(margins, device=device), name).tolist())
        for name, margins in film.scores.items()
    }
    return replace(film, scores=scores)


def _queries(batch: Batch, talk: int, times_s: list[float]) -> list[Said]:
    """What users ask, each at the first frame behind it."""
    found, shown = [], 0
    for turn in batch.conversations[talk].turns:
        if turn.role == "stream":
            shown = frames_of(turn)[1]
        elif turn.role == "user":
            found.append(Said(times_s[min(shown, len(times_s) - 1)], turn.text))
    return found


def _times_s(batch: Batch) -> list[list[float]]:
    """When the frames of each conversation's film are."""
    # once for all rows: each question to a GPU would wait for it
    times, counts = batch.timestamps_s.tolist(), batch.frame_mask.sum(dim=1).tolist()
    films = [batch.films_of(row)[0] for row in range(len(batch))]
    return [times[film][: counts[film]] for film in films]
