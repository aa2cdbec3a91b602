"""The documentation as a site: `python scripts/build_site.py --to site` (extra `docs`).

The pages are those of docs/ and two kinds that are written here: the settings of every group of
conf/, and the reference of every package from its docstrings. Zensical builds them, and refuses
links between pages that lead nowhere. What the built pages link to is looked up once more, so that
pictures, anchors of the reference and files outside docs/ are there, too.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

import yaml

from mmavlm.commands.verbs import COMMANDS
from mmavlm.core.config_files import (
    Setting,
    choices,
    config_dir,
    groups,
    headline,
    is_global,
    settings,
    settings_of_choice,
)
from mmavlm.core.extras import needs_extra

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mmavlm"
NAMED_BLOCK = re.compile(r"^```(\w+) (\w+)$", re.MULTILINE)
OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)]+)\)")
SIGNS = re.compile(r"([\\|<>*_`\[\]$])")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
OF_CODE = ("_target_", "_partial_", "_recursive_", "_convert_")


def write_pages(folder: Path) -> Path:
    """Write all pages below `folder`, and the config of the site; where the config is."""
    docs = folder / "docs"
    shutil.copytree(ROOT / "docs", docs, ignore=shutil.ignore_patterns("site.yml"))
    for page in docs.glob("*.md"):
        page.write_text(for_the_site(page.read_text()))
    config = yaml.safe_load((ROOT / "docs" / "site.yml").read_text())
    written = {"settings": write_settings(docs), "reference": write_reference(docs)}
    config["nav"] = _filled(config["nav"], written)
    config |= {"docs_dir": "docs", "site_dir": "site"}
    handler = next(p["mkdocstrings"] for p in config["plugins"] if "mkdocstrings" in p)
    handler["handlers"]["python"]["paths"] = [str(ROOT / "src")]
    at = folder / "mkdocs.yml"
    at.write_text(yaml.safe_dump(config, sort_keys=False))
    return at


def for_the_site(text: str) -> str:
    """A page as the site takes it: names of blocks as titles, and of what lies outside docs/.

    What the site says of a file or a folder takes its place in a link.
    """
    text = NAMED_BLOCK.sub(r'```\1 title="\2"', text)
    return OUTSIDE.sub(lambda link: _page_of(link[1], Path(link[2])), text)


def _page_of(text: str, path: Path) -> str:
    if path.parts[0] == "conf":
        page = "commands" if len(path.parts) == 1 else path.parts[1]
        return f"[{text}](settings/{page}.md)"
    if path.parts[:2] == ("src", "mmavlm") and path.suffix == ".py":
        module = ".".join(path.with_suffix("").parts[1:])
        return f"[{text}](reference/{module.rpartition('.')[0]}.md#{module})"
    return f"{text} (`{path}`)"


def _filled(nav: list[Any], written: dict[str, list[Any]]) -> list[Any]:
    """The navigation with the pages that were written where it names them."""
    found = []
    for entry in nav:
        ((title, below),) = entry.items()
        if isinstance(below, list):
            below = _filled(below, written)
        found.append({title: written.get(below, below) if isinstance(below, str) else below})
    return found


def write_settings(docs: Path) -> list[Any]:
    """Pages of all settings: of the commands, and of the choices of each group; for the nav."""
    (docs / "settings").mkdir()
    (docs / "settings" / "commands.md").write_text("\n".join(of_commands()))
    found: list[Any] = [{"Commands": "settings/commands.md"}]
    told = {group.key: group.says for group in groups(config_dir() / "train.yaml")}
    for group in sorted(path.name for path in config_dir().iterdir() if path.is_dir()):
        if choices(group):
            page = f"settings/{group}.md"
            (docs / page).write_text("\n".join(of_group(group, told.get(group, ""))))
            found.append({group: page})
    return found


def of_commands() -> Iterator[str]:
    """The page of what the commands do and their own settings."""
    yield "# Commands\n"
    yield "`mmavlm <command>` and `python -m mmavlm.<command>` are the same.\n"
    for verb, command in COMMANDS.items():
        yield f"## {verb}\n\n{command.does}\n\n```bash"
        yield from (f"mmavlm {verb} {line}" for line in command.lines)
        yield "```\n"
        for name in command.configs:
            path = config_dir() / f"{name}.yaml"
            yield from table(settings(path))
            if chosen := groups(path):
                yield from ["Groups, each chosen by `group=choice`:\n", "| | chosen | |", "|-|-|-|"]
                for group in chosen:
                    page = f"[`{group.key}`]({group.key.split('@')[0].split('/')[0]}.md)"
                    known = choices(group.key.split("@")[0].split("/")[0])
                    name = page if known else f"`{group.key}`"
                    yield f"| {name} | `{group.value}` | {escaped(group.says)} |"
                yield ""


def of_group(group: str, told: str) -> Iterator[str]:
    """The page of a group: its choices, and the settings of each."""
    folder = config_dir() / group
    yield f"# {group}\n"
    if told:
        yield f"{escaped(told[0].upper() + told[1:])}.\n"
    yield f"`{group}=…` is one of:\n\n| choice | |\n|-|-|"
    for name in choices(group):
        says = escaped(headline(folder / f"{name}.yaml"))
        yield f"| [`{name}`](#{anchor(group, name)}) | {says} |"
    for name in choices(group):
        path = folder / f"{name}.yaml"
        yield f"\n## {group}={name} {{ #{anchor(group, name)} }}\n"
        yield f"{escaped(headline(path))}\n"
        if is_global(path):
            rows = [Setting(g.key, g.value, g.says) for g in groups(path) if g.key != "_self_"]
            yield from table([*rows, *settings(path)])
        else:
            found = settings_of_choice(group, name)
            shown = [s for s in found if s.key.split(".")[-1] not in OF_CODE]
            yield from table([replace(s, key=f"{group}.{s.key}") for s in shown])
            target = next((s.value for s in found if s.key == "_target_"), "")
            if target.startswith("mmavlm."):
                yield f"Made by `{target}`.\n"


def anchor(group: str, choice: str) -> str:
    """Where a choice stands on the page of its group."""
    return f"{group}-{choice}".replace("_", "-")


def table(found: list[Setting]) -> Iterator[str]:
    """Settings as a table; none of nothing."""
    if not found:
        return
    yield "| setting | value | |\n|-|-|-|"
    for setting in found:
        value = f"`{' '.join(setting.value.split())}`" if setting.value.strip() else ""
        yield f"| `{setting.key}` | {value.replace('|', chr(92) + '|')} | {escaped(setting.says)} |"
    yield ""


def escaped(text: str) -> str:
    """A comment of a yaml as text of a page; what it has between backticks stays code."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part.replace("|", "\\|") if part.startswith("`") else SIGNS.sub(r"\\\1", part)
        for part in parts
    )


def write_reference(docs: Path) -> list[Any]:
    """A page for each package, with its modules; for the nav."""
    (docs / "reference").mkdir()
    found: list[Any] = []
    for folder in sorted({path.parent for path in PACKAGE.rglob("*.py")}):
        name = ".".join(folder.relative_to(PACKAGE.parent).parts)
        lines = [f"# {name}\n"]
        for path in sorted(folder.glob("*.py")):
            module = name if path.stem == "__init__" else f"{name}.{path.stem}"
            if path.stem != "__main__" and (path.stem != "__init__" or name == "mmavlm"):
                lines.append(f"::: {module}\n")
        if len(lines) > 1:
            page = f"reference/{name}.md"
            (docs / page).write_text("\n".join(lines))
            found.append({name: page})
    return found


def build(config: Path, to: Path) -> None:
    """Build the site that a config describes, and put it where it is to lie.

    Raises:
        SystemExit: if a page links to nothing; what and where has been printed by then.
    """
    command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = COLOURS.sub("", done.stdout + done.stderr.partition("Traceback (most recent")[0])
        raise SystemExit(f"error: the site was not built\n{said.strip()}")
    if broken := list(broken_links(config.parent / "site")):
        raise SystemExit("error: pages link to what is not there:\n  " + "\n  ".join(broken))
    shutil.rmtree(to, ignore_errors=True)
    shutil.move(config.parent / "site", to)


class Links(HTMLParser):
    """What a page links to, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag links to, and what it is called."""
        for name, value in attrs:
            if value and name in ("href", "src") and tag not in ("form", "base"):
                self.found.append(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def broken_links(site: Path) -> Iterator[str]:
    """Links of a built site to pages, files and anchors that it does not have."""
    pages = {page: Links(page) for page in site.rglob("*.html") if page.name != "404.html"}
    for page, links in pages.items():
        for link in links.found:
            address, place = urldefrag(link)
            if urlparse(link).scheme or address.startswith("//"):
                continue
            at = (page.parent / unquote(address)).resolve() if address else page.resolve()
            at = at / "index.html" if at.is_dir() else at
            held = pages.get(at)
            if not at.is_file() or (place and held and unquote(place) not in held.anchors):
                yield f"{page.relative_to(site)}: {link}"


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--to", type=Path, default=Path("site"), help="the folder of the site")
    options = parser.parse_args()
    try:
        import zensical  # noqa: F401
    except ImportError as error:
        raise SystemExit(f"error: {needs_extra('the site', str(error), 'docs')}") from error
    with tempfile.TemporaryDirectory() as folder:
        build(write_pages(Path(folder).resolve()), options.to)
    print(f"open {options.to / 'index.html'}")


if __name__ == "__main__":
    main()
