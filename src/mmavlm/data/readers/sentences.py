"""What is asked of a film that runs, where an annotation has no words for it."""

from __future__ import annotations

from collections.abc import Sequence

from mmavlm.core.errors import ConfigError

PLACE = "{}"  # of the words that an annotation gives

# Questions to which a film is narrated: MMDuet draws one of ten.
NARRATE = (
    "Tell me what happens, as it happens.",
    "Describe each step when you see it.",
    "Keep me posted on what is going on in the video.",
    "Comment on the video while it plays.",
    "Whenever something new happens, say so in one sentence.",
    "I cannot watch right now. What is being done?",
    "Give me a short running commentary.",
    "Say briefly what each part of the video shows.",
    "Watch along with me and sum up every scene.",
    "Report what you see, one short sentence at a time.",
)
# How the words of a search are asked: MMDuet leaves two of twelve as they are.
FIND = (
    "{}",
    "{}",
    "When does this happen: {}",
    "Find the part that shows this: {}",
    "I am looking for the moment of '{}'.",
    "Mark every frame that fits '{}'.",
    "Watch out for this: {}",
    "Which part of the video shows '{}'?",
    "Let me know while you see '{}'.",
    "Can '{}' be seen? Show me where.",
    "Point out the scene described as '{}'.",
    "From when to when can I see '{}'?",
)


def sentences(given: Sequence[str] | None, usual: Sequence[str], *, place: bool) -> tuple[str, ...]:
    """The sentences that a user gives, or the usual ones; with `place` each says where words go.

    Raises:
        ConfigError: if there is none, one is blank, or a place is missing, or there several times.
    """
    if given is None:
        return tuple(usual)
    found = (given,) if isinstance(given, str) else tuple(map(str, given))
    wrong = [one for one in found if not one.strip() or (place and one.count(PLACE) != 1)]
    if wrong or not found:
        once = f" with {PLACE} once in each" if place else ""
        raise ConfigError(
            f"data.reader.prompts holds {wrong[0]!r}; give sentences{once}"
            if wrong
            else f"data.reader.prompts is empty; give sentences{once}, or null"
        )
    return found
