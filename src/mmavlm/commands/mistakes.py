"""Settings and choices that there are none of, told with those that are nearest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser  # what `hydra.main` itself reads with
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmavlm.commands.familiar import FAMILIAR
from mmavlm.core.config_files import config_dir
from mmavlm.core.errors import ConfigError
from mmavlm.core.extras import needs_extra
from mmavlm.core.nearest import likeness, nearest, plain
from mmavlm.core.quoting import quoted
from mmavlm.core.settings import names

CHOICES = 5  # so many of a group's choices are named
SURE = 0.75  # how alike a setting must be to be named
CLOSE = 0.04  # and how far at most behind the one that is most alike
SEARCH = "hydra.searchpath"
LAUNCHER, OF_LAUNCHER = "hydra/launcher", "hydra.launcher."
# Launchers of sweeps on clusters: the plugin of Hydra that brings each, and our extra with it.
LAUNCHERS = {
    "submitit_local": ("hydra-submitit-launcher", "cluster"),
    "submitit_slurm": ("hydra-submitit-launcher", "cluster"),
    "ray": ("hydra-ray-launcher", "ray"),
    "ray_aws": ("hydra-ray-launcher", "ray"),
}


def refuse_mistakes(config_name: str, arguments: Sequence[str]) -> None:
    """Refuse a command line that sets what is not there; whatever else is wrong, Hydra tells.

    Raises:
        ConfigError: naming each mistake with what was probably meant.
    """
    options, unknown = get_args_parser().parse_known_intermixed_args(list(arguments))
    if options.config_name or options.config_path:
        return  # another config, of which nothing is known here
    if options.hydra_help or options.shell_completion:
        return
    told = [*map(_told_flag, unknown)]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        places, overrides = search_path(options.overrides)
        places = [*([options.config_dir] if options.config_dir else []), *places]
        look = _Look(config_name, places, bool(options.multirun))
        told += look.mistakes(overrides)
    if told:
        more = f"{len(told)} mistakes:\n  " if len(told) > 1 else ""
        raise ConfigError(more + "\n  ".join(told))


def _told_flag(argument: str) -> str:
    key, _, value = argument.lstrip("-").partition("=")
    here = FAMILIAR.get(plain(key), key)
    line = here if "=" in here else f"{here}={value or '…'}"
    return f"{argument}: settings are written without dashes, key=value, such as {line}"


def search_path(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Where else yamls lie by `hydra.searchpath`, and the arguments without it."""
    given = [a for a in arguments if a.partition("=")[0] == SEARCH]
    places = [place for one in _parsed(given) for place in names(one.value())]
    return places, [a for a in arguments if a not in given]


def _folder(place: str) -> Path:
    """The folder of a place where yamls lie: its path, with file:// or without, or pkg://package.

    Raises:
        ConfigError: if there is no such package, or no such folder.
    """
    scheme, mark, path = place.partition("://")
    folder = Path(path if mark else place)
    if scheme == "pkg" and mark:
        try:
            found = find_spec(path)
        except ModuleNotFoundError:  # of the package above it
            found = None
        folders = [] if found is None else list(found.submodule_search_locations or [])
        if not folders:
            raise ConfigError(
                f"{SEARCH} names {place}, but there is no such package here; install "
                f"{path.partition('.')[0]} with pip, or give the folder of its yamls: file://…"
            )
        folder = Path(folders[0])
    if not folder.is_dir():
        raise ConfigError(f"{place} is no folder of yamls; give one that is there")
    return folder


@dataclass
class _Look:
    """A command line held against the config it is for."""

    config_name: str
    places: list[str]  # of more configs (--config-dir, hydra.searchpath)
    sweep: bool

    def __post_init__(self) -> None:
        self.folders = [_folder(place) for place in self.places]

    def mistakes(self, arguments: Sequence[str]) -> list[str]:
        """What is set that is not there, one line for each."""
        bare = [a for a in arguments if "=" not in a and not a.startswith("~")]
        told = [self._told_bare(argument) for argument in bare]
        given = _parsed([a for a in arguments if a not in bare])
        told += [line for one in given if (line := self._told_choice(one))]
        told += [line for one in given if (line := self._told_added(one))]
        if told or self._composed(map(self._first, given)) is None:
            told += self._told_keys(given)
        return told

    def _composed(self, overrides: Iterator[str] | Sequence[str]) -> dict[str, Any] | None:
        """The config as plain containers, Hydra's own included; None if there is a mistake."""
        more = [f"{SEARCH}=[{','.join(map(quoted, self.places))}]"] if self.places else []
        try:
            config = compose(self.config_name, [*overrides, *more], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException):
            return None
        return OmegaConf.to_container(config, resolve=False)  # type: ignore[return-value]

    def _first(self, override: Override) -> str:
        """The override with the first value of its sweep."""
        line = str(override.input_line)
        if not (self.sweep and override.is_sweep_override()):
            return line
        return f"{line.partition('=')[0]}={next(iter(override.sweep_string_iterator()))}"

    def _values(self, override: Override) -> list[Any]:
        """Every value it gives a setting, in any job."""
        if override.is_delete():
            return []
        if override.is_sweep_override():
            return list(override.sweep_string_iterator()) if self.sweep else []
        value = override.value()
        return value if isinstance(value, list) else [value]

    def _options(self, override: Override) -> list[str]:
        """The choices of the group that is set; [] if it is no group."""
        group = str(override.key_or_group).lstrip("/")
        own = [path.stem for folder in self.folders for path in (folder / group).glob("*.yaml")]
        return [*_loader().get_group_options(group), *sorted(own)]

    def _told_choice(self, override: Override) -> str | None:
        options, name = self._options(override), override.key_or_group
        if not options:
            return None
        values = ["null" if value is None else str(value) for value in self._values(override)]
        split = [part.strip("[] ") for value in values for part in value.split(",")]
        if "null" in split:  # of which Hydra has nothing to tell but where it failed
            instead = f"choose {name}=none" if "none" in options else "leave it out"
            return f"{name}=null chooses nothing; {instead}"
        unknown = [value for value in split if value not in options and "/" not in value]
        if not unknown:
            return None
        if name == LAUNCHER and unknown[0] in LAUNCHERS:
            return needs_extra(f"{name}={unknown[0]}", *LAUNCHERS[unknown[0]])
        near = ", ".join(nearest(unknown[0], options, CHOICES, least=3))
        listed = f" (--help {name} lists all {len(options)})" if len(options) > CHOICES else ""
        return f"{name}={unknown[0]} is no choice; nearest are {near}{listed}"

    def _told_added(self, override: Override) -> str | None:
        """A setting that `+` would add beside the one that is meant, where nothing reads it."""
        if not override.is_add() or self._options(override):
            return None
        key = str(override.key_or_group)
        base = self._composed([]) or {}
        above, _, last = key.rpartition(".")
        siblings = _at(base, above) if above else base
        here = siblings if isinstance(siblings, Mapping) else {}
        misspelt = last not in here and any(plain(last) == plain(name) for name in here)
        if misspelt or (plain(last) in FAMILIAR and last not in here and not above):
            return self._told_key(override, base)
        return None

    def _told_keys(self, given: Sequence[Override]) -> list[str]:
        """The settings that are not there, with the groups as they are chosen."""
        groups = [one for one in given if self._options(one)]
        chosen = [line for one in groups if (line := self._likely(one)) is not None]
        base = self._composed(chosen) or self._composed([])
        if base is None:
            return []
        plain_ones = [one for one in given if one not in groups and not one.is_add()]
        if any(one.key_or_group == LAUNCHER and self._likely(one) is None for one in groups):
            # what a launcher that is missing would take, nobody knows
            plain_ones = [o for o in plain_ones if not o.key_or_group.startswith(OF_LAUNCHER)]
        return [
            self._told_key(one, base)
            for one in plain_ones
            if not one.is_force_add() and not _is_there(base, str(one.key_or_group))
        ]

    def _likely(self, override: Override) -> str | None:
        """The override of a group, as it was probably meant."""
        if self._told_choice(override) is None:
            return self._first(override)
        value = override.value()
        if override.key_or_group == LAUNCHER and value in LAUNCHERS:
            return None
        name, options = str(override.input_line).partition("=")[0], self._options(override)
        near = [] if isinstance(value, list) else nearest(str(value), options, 1)
        return f"{name}={near[0]}" if near else None

    def _told_key(self, override: Override, base: Mapping[str, Any]) -> str:
        line = str(override.input_line).lstrip("+")
        key, _, value = line.partition("=")
        near = suggested(key.lstrip("~"), base)
        meant = [s if "=" in s or not value else f"{s}={value}" for s in near]
        advice = f"did you mean {' or '.join(meant)}?" if meant else "--help lists those there are"
        return f"{override.input_line}: there is no setting {key.lstrip('~')}; {advice}"

    def _told_bare(self, argument: str) -> str:
        holding = [
            group
            for group in _loader().list_groups("")
            if group != "hydra" and argument in _loader().get_group_options(group)
        ]
        meant = f"; did you mean {holding[0]}={argument}?" if holding else ""
        return f"{argument}: settings are written key=value{meant}"


def suggested(key: str, config: Mapping[str, Any], most: int = 3) -> list[str]:
    """The settings that a key which is not there probably means, the likeliest first."""
    last = key.rpartition(".")[2]
    of_hydra = key.startswith("hydra.")
    known = [p for p in _paths(config) if p.startswith("hydra.") == of_hydra]
    known += [g for g in _loader().list_groups("") if g not in (*known, "hydra")]
    known = [path for path in known if not key.startswith(f"{path}.")]
    for name in (key, last):
        familiar = FAMILIAR.get(plain(name).replace(".", ""))
        if familiar and (familiar.startswith("hydra.") or familiar.partition("=")[0] in known):
            return [familiar]
    same = [path for path in known if plain(path.rpartition(".")[2]) == plain(last)]
    whole = {path: likeness(key, path) for path in known}
    if same:
        return sorted(same, key=lambda path: (path.count("."), -whole[path]))[:most]
    near = {p: max(whole[p], likeness(last, p.rpartition(".")[2]) - 0.05) for p in known}
    least = max(SURE, max(near.values(), default=0) - CLOSE)
    return sorted((p for p in known if near[p] >= least), key=lambda p: -near[p])[:most]


def _parsed(arguments: Sequence[str]) -> list[Override]:
    """The overrides that can be read; Hydra tells of the others."""
    parser, found = OverridesParser.create(_loader()), []
    for argument in arguments:
        try:
            found += parser.parse_overrides([argument])
        except HydraException:
            continue
    return found


def _loader() -> Any:
    return GlobalHydra.instance().config_loader()


def _at(config: Any, path: str) -> Any:
    """What lies at a path; None if nothing does."""
    for part in path.split("."):
        if not isinstance(config, Mapping):
            return config if isinstance(config, str) else None
        config = config.get(part)
    return config


def _is_there(config: Any, path: str) -> bool:
    """Whether a path leads to a setting; what a reference leads to is taken to be there."""
    for part in path.replace("[", ".").replace("]", "").split("."):
        if isinstance(config, str) and config.startswith("${"):
            return True
        if isinstance(config, list) and part.isdigit():
            return True
        if not isinstance(config, Mapping) or part not in config:
            return False
        config = config[part]
    return True


def _paths(config: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{above}{name}.")
