"""Look at a data set before training on it: `python -m mmavlm.check data=lvu data.root=…`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig

from mmavlm.commands.cli import announce, check_format, run_command
from mmavlm.core.medium import Medium
from mmavlm.data.parts import parts_of
from mmavlm.data.talks import TokenLengths


def check(config: DictConfig) -> None:
    """Print item counts, class balance, and missing and broken videos of every split.

    Of a mix it prints them for each set, and how many items an epoch draws of it.
    """
    check_format(config.format)
    announce(config, "reading annotations")
    # Imported here, so that a word is said before it takes time.
    from hydra.utils import instantiate

    from mmavlm.data.inspect import inspect

    parts = parts_of(config.data)
    lengths = _token_lengths(config)
    found = {
        name: inspect(
            instantiate(part.reader),
            part.root,
            part.task,
            decode=config.decode,
            tokens=lengths and replace(lengths, lines=_lines(part.get("subtitles"))),
        )
        for name, part in parts.items()
    }
    mixed = "" not in parts
    drawn = instantiate(config.data).drawn() if mixed else {}
    if config.format == "json":
        told: dict[str, Any] = {name: inspection.as_dict() for name, inspection in found.items()}
        whole = {"sets": told, "drawn": {name: count for name, (count, _) in drawn.items()}}
        print(json.dumps(whole if mixed else told[""], ensure_ascii=False))
        return
    for name, inspection in found.items():
        inspection.print(name)
    total = sum(count for count, _ in drawn.values())
    for name, (count, size) in drawn.items():
        print(f"an epoch draws {count} of the {size} items of {name}, {count / total:.1%} of all")


def _token_lengths(config: DictConfig) -> TokenLengths | None:
    """How many tokens texts take by the tokenizer that is named, if one is."""
    if config.tokenizer is None:
        return None
    # Imported here, since transformers takes seconds that a check without tokens does not need.
    from mmavlm.model.plain_text import PlainTokenizer
    from mmavlm.model.text import load_tokenizer

    plain = PlainTokenizer(load_tokenizer(str(config.tokenizer)))
    limits = {name: config.llm[name] for name in ("max_prompt_tokens", "max_answer_tokens")}
    return TokenLengths(lambda texts: list(map(len, plain.batch(texts))), **limits)


def _lines(subtitles: bool | None) -> Callable[[Medium], list[str]]:
    """What is said in a film as it is shown, by the setting `data.subtitles`."""
    # Imported here, since it opens films.
    from mmavlm.data.subtitles import check_choice, said_in, subtitles_of

    choice = check_choice(subtitles)
    return lambda film: [line.text for line in said_in(film, subtitles_of(film, choice))]


def main() -> None:
    """Entry point of `mmavlm-check`."""
    run_command(check, "check")


if __name__ == "__main__":
    main()
