"""What conversations hold: how many turns, what is shown in them, how long their texts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mmavlm.core.conversation import Conversation
from mmavlm.core.items import Item
from mmavlm.core.medium import KINDS


def described(items: Sequence[Item]) -> list[str]:
    """Lines about the conversations of a split, none where each item asks once about one film.

    Lengths are in words and characters, since tokens are those of a language model.
    """
    talks = [item.conversation for item in items]
    if all(map(_asks_once, talks)):
        return []
    media = Counter(medium.kind for talk in talks for medium in talk.media)
    several = sum(len(talk.media) > 1 for talk in talks)
    alone = sum(not talk.media for talk in talks)
    turns = [len(talk.turns) for talk in talks]
    lines = [
        f"{len(talks)} conversations of {_spread(turns)} turns",
        f"media: {', '.join(f'{media[kind]} {kind}s' for kind in KINDS)}; {several} conversations "
        f"show several, {alone} none",
    ]
    for role in ("system", "user", "assistant"):
        texts = [turn.text for talk in talks for turn in talk.turns if turn.role == role]
        if texts:
            lines.append(f"a turn of the {role}: {_lengths(texts)}")
    entire = ["".join(turn.text + "\n" for turn in talk.turns) for talk in talks]
    return [*lines, f"an entire conversation: {_lengths(entire)}"]


def _asks_once(talk: Conversation) -> bool:
    films = [medium.kind for medium in talk.media] == ["film"]
    return films and talk.turns[0].role == "user" and len(talk.turns) <= 2


def _lengths(texts: Sequence[str]) -> str:
    words = [len(text.split()) for text in texts]
    return f"{_spread(words)} words, at most {max(map(len, texts))} characters"


def _spread(numbers: Sequence[int]) -> str:
    mean = sum(numbers) / len(numbers)
    return f"{min(numbers)} to {max(numbers)} ({mean:.1f} on average)"
