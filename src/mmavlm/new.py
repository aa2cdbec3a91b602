"""A part of one's own as a package: `python -m mmavlm.new fusion mypackage`."""

from __future__ import annotations

import keyword
import os
import re
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mmavlm.commands.plain import run_plain
from mmavlm.core.config_files import choices
from mmavlm.core.errors import ConfigError
from mmavlm.core.files import PARTIAL

GROUPS = {"fusion": "fusion", "memory": "memory", "reader": "data"}  # where its yaml belongs
NAME = re.compile(r"[a-z][a-z0-9_]*")


def new(kind: str, package: str, folder: Path) -> int:
    """Write a small package with a part of this kind below `folder`, and say what to do next; 0.

    Raises:
        ConfigError: if the package cannot be called so, or is there already.
    """
    _check_name(package, GROUPS[kind])
    target = folder / package
    if target.exists():
        raise ConfigError(f"{target} is there already; choose another name, or another folder=…")
    partial = folder / f".{package}{PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(partial, kind, package)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    print(f"written: {target}")
    print(f"next: cd {target} && pip install -e '.[dev]' && pytest; README.md says how to use it")
    return 0


def _check_name(package: str, group: str) -> None:
    if not NAME.fullmatch(package) or keyword.iskeyword(package):
        raise ConfigError(
            f"{package} is no name of a package; give small letters, digits and _, such as my_parts"
        )
    if package in choices(group):
        raise ConfigError(f"{group}={package} is a choice of mmavlm itself; choose another name")
    if find_spec(package) is not None:
        raise ConfigError(f"{package} can be imported already; choose another name")


def _write(target: Path, kind: str, package: str) -> None:
    """Write all files of the package to `target`, which is yet to be made."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("mmavlm.commands", "new_parts"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # no markup
    )
    values = {
        "kind": kind,
        "package": package,
        "group": GROUPS[kind],
        "name": class_name(package, kind),
        "version": version("mmavlm"),
    }
    sources = target / "src" / package
    files = {
        target / "pyproject.toml": "pyproject.toml",
        target / "README.md": "README.md",
        target / "tests" / f"test_{package}.py": f"{kind}_test.py",
        sources / f"{kind}.py": f"{kind}.py",
        sources / "conf" / GROUPS[kind] / f"{package}.yaml": f"{kind}.yaml",
    }
    for path, template in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(templates.get_template(f"{template}.j2").render(values), encoding="utf-8")
    (sources / "__init__.py").touch()
    (sources / "conf" / "__init__.py").touch()  # for Hydra, a folder of yamls is a module


def class_name(package: str, kind: str) -> str:
    """The name of the part's class: `my_parts` → `MyPartsFusion`."""
    camel = "".join(word.capitalize() for word in package.split("_"))
    last = kind.capitalize()
    return camel if camel.endswith(last) and camel != last else f"{camel}{last}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mmavlm-new`."""
    run_plain("new", new, arguments)


if __name__ == "__main__":
    main()
