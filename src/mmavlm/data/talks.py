"""What conversations hold: how many turns, what is shown in them, how long their texts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mmavlm.core.conversation import Conversation
from mmavlm.core.errors import VideoError
from mmavlm.core.items import Item
from mmavlm.core.medium import KINDS, Medium
from mmavlm.core.turns import Role


@dataclass(frozen=True)
class TokenLengths:
    """How many tokens texts take, `count` of many at once, and what a language model reads of them.

    Of an answer, its end counts as a token. `lines` are what is said in a film as it is shown.

    Raises:
        VideoError: by `lines`, naming a file that cannot be used.
    """

    count: Callable[[Sequence[str]], Sequence[int]]
    max_prompt_tokens: int
    max_answer_tokens: int
    lines: Callable[[Medium], Sequence[str]] = lambda medium: ()

    def of(self, role: Role, texts: Sequence[str]) -> str:
        """The lengths of the turns of a role, and how many of them are cut."""
        answers = role == "assistant"
        name = "max_answer_tokens" if answers else "max_prompt_tokens"
        most = int(getattr(self, name))
        tokens = [count + answers for count in self.count(texts)]
        over = sum(count > most for count in tokens)
        lost = f"{over} of {len(tokens)} lose their {'end' if answers else 'beginning'}"
        return f"; {_spread(tokens)} tokens, {lost if over else 'none is cut'} (llm.{name}={most})"

    def of_media(self, talks: Sequence[Conversation]) -> list[str]:
        """How many views a row has, and how many lines between their frames."""
        views = [[talk.media[n] for turn in talk.turns for n in turn.shows] for talk in talks]
        lines: dict[Medium, list[int]] = {}  # the tokens of each
        refused: dict[str, str] = {}
        for medium in dict.fromkeys(medium for row in views for medium in row):
            try:
                texts = self.lines(medium)
            except VideoError as error:
                refused[medium.medium_id] = str(error)
                texts = ()
            lines[medium] = list(self.count([f"\n{text}\n" for text in texts])) if texts else []
        found = [
            f"views: {_spread([len(row) for row in views])} a row; a run says how many tokens a "
            "view has, and counts one"
        ]
        if any(lines.values()):
            rows = [[n for medium in row for n in lines[medium]] for row in views]
            found.append(
                f"subtitles: {_spread([len(row) for row in rows])} lines a row, about "
                f"{_spread([sum(row) for row in rows])} tokens, none of which is cut"
            )
        if refused:
            first = next(iter(refused.values()))
            found.append(f"subtitles of {len(refused)} films cannot be read, such as: {first}")
        return found


def described(items: Sequence[Item], tokens: TokenLengths | None = None) -> list[str]:
    """Lines about the conversations of a split.

    Lengths are in words and characters, and where `tokens` are given in these too. Without them
    there are no lines where each item asks once about one film.
    """
    talks = [item.conversation for item in items]
    if not talks or (tokens is None and all(map(_asks_once, talks))):
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
    if tokens is not None and media:
        lines += tokens.of_media(talks)
    roles: tuple[Role, ...] = ("system", "user", "assistant")
    for role in roles:
        texts = [turn.text for talk in talks for turn in talk.turns if turn.role == role]
        if texts:
            counted = "" if tokens is None else tokens.of(role, texts)
            lines.append(f"a turn of the {role}: {_lengths(texts)}{counted}")
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
