"""Values as Hydra's command line reads them back, whatever signs they have."""

from __future__ import annotations

import re


def quoted(value: str) -> str:
    r"""The value in single quotes; `\` is doubled only before a quote, where alone it is a sign."""
    return "'" + re.sub(r"(\\*)('|$)", _escaped, value) + "'"


def as_text(value: str) -> str:
    r"""The value as a config holds it, with `${…}` in it as text: OmegaConf resolves nothing."""
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)


def literal(value: str) -> str:
    r"""The value in quotes, as `quoted`, with `${…}` in it as text."""
    return quoted(as_text(value))


def _escaped(found: re.Match[str]) -> str:
    backslashes, quote = found.groups()
    return 2 * backslashes + ("\\'" if quote else "")
