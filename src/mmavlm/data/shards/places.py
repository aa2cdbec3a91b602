"""Where shards lie: paths or addresses of any file system of fsspec, and patterns of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any, BinaryIO

from mmavlm.core.errors import ConfigError
from mmavlm.core.extras import needs_extra
from mmavlm.core.redaction import HIDDEN, IN_ADDRESS, redacted, redacted_address

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
GLOB = re.compile(r"[*?\[]")
MOST = 1_000_000  # shards of one pattern
AT_ONCE = 16  # requests about files, each in a thread that waits
# What file systems call that which changes with a file.
VERSIONS = (
    "ETag", "etag", "md5Hash", "checksum", "Last-Modified", "LastModified", "last_modified",
    "mtime", "created",
)  # fmt: skip
QUERY = re.compile(r"(?<=://)(\S*?)\?\S+")

Options = Mapping[str, Any]  # what a file system of fsspec takes: `anon`, `endpoint_url`, …


def is_address(place: object) -> bool:
    """Whether something names a file system, as `s3://bucket` does, and is no plain path."""
    return ADDRESS.match(str(place)) is not None


@dataclass(frozen=True)
class Place:
    """One file: an address or a path, and the options of its file system.

    Raises:
        ConfigError: if the address holds a password, or its file system cannot be used here.
    """

    address: str
    options: Options = field(default_factory=dict, hash=False, compare=False)

    def __post_init__(self) -> None:
        if IN_ADDRESS.search(self.address):
            raise ConfigError(
                f"{redacted_address(self.address)} holds a password; leave it out, and give it by "
                "the environment or the file that its file system reads"
            )

    def __str__(self) -> str:
        return str(redacted(self.address))

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rstrip("/").rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether the file lies on a disk of this machine."""
        return not is_address(self.address) or self.address.startswith(("file://", "local://"))

    def beside(self, suffix: str) -> Place:
        """The file whose name is this one's with a suffix."""
        return Place(self.address + suffix, self.options)

    def below(self, name: str) -> Place:
        """A file in the folder that this is."""
        return Place(f"{self.address.rstrip('/')}/{name}", self.options)

    def system(self) -> tuple[AbstractFileSystem, str]:
        """The file system, and the path in it.

        Raises:
            ConfigError: if there is no such file system, or what it needs is not installed.
        """
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self.address, **self.options)
        except ImportError as error:
            kind = self.address.partition("://")[0]
            raise ConfigError(
                f"{self}: " + needs_extra(f"{kind}://", str(error).rstrip("."), "shards")
            ) from error
        except ValueError as error:
            raise ConfigError(f"{self} names no file system that fsspec knows: {error}") from error

    def open(self, block_bytes: int | None = None) -> BinaryIO:
        """The file, to read, so many bytes at a time where it is read from afar."""
        system, path = self.system()
        return system.open(path, "rb", **({"block_size": block_bytes} if block_bytes else {}))

    def told(self) -> Told:
        """Its size and version, asked for anew."""
        system, path = self.system()
        system.invalidate_cache()
        return Told.of(system.info(path))

    def reason(self, error: BaseException) -> str:
        """What an error says, on one line, without keys or what an address asks."""
        text = " ".join(str(error).split()) or type(error).__name__
        for secret in _texts(self.options):
            text = text.replace(secret, HIDDEN)
        return str(redacted(QUERY.sub(rf"\1?{HIDDEN}", text)))[:300]


@dataclass(frozen=True)
class Told:
    """What a file system says of a file: its size in bytes, and what changes when it does."""

    size: int | None = None
    version: str | None = None

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Told:
        """What `info` of a file system says."""
        size = info.get("size")
        version = next((str(info[key]) for key in VERSIONS if info.get(key) is not None), None)
        return cls(None if size is None else int(size), version)


def shards_of(
    at: str, patterns: str | Sequence[str], options: Options
) -> list[tuple[Place, Told | None]]:
    """The files of patterns below `at`, sorted, each once; None where nothing is told of one yet.

    A pattern has braces (`{000000..000099}`, `{a,b}`) or the signs of a glob, or is one name; it
    may be an address or an absolute path of its own.

    Raises:
        ConfigError: if a pattern names too many files, or a file system cannot be used.
        OSError: if a folder cannot be listed.
    """
    found: dict[str, tuple[Place, Told | None]] = {}
    given = [patterns] if isinstance(patterns, str) else list(patterns)
    whole = [name for pattern in given for name in expanded(joined(at, str(pattern)))]
    for name in whole:
        if GLOB.search(ADDRESS.sub("", name)):
            found.update({place.address: (place, told) for place, told in _listed(name, options)})
        else:
            found[name] = Place(name, options), None
    return [found[name] for name in sorted(found)]


def joined(at: str, name: str) -> str:
    """A name below `at`, unless it is an address or an absolute path itself."""
    if is_address(name) or os.path.isabs(name):
        return name
    return f"{at.rstrip('/')}/{name}"


def expanded(pattern: str) -> list[str]:
    """The names of a pattern with braces, each a range of numbers or a list.

    Raises:
        ConfigError: if there are more than a million.
    """
    parts, at, total = [], 0, 1
    for brace in BRACES.finditer(pattern):
        inside = RANGE.fullmatch(brace[1])
        first, last = (int(inside[1]), int(inside[2])) if inside else (0, 0)
        total *= max(1, last - first + 1) if inside else brace[1].count(",") + 1
        if total > MOST:
            raise ConfigError(f"{redacted(pattern)} names {total} shards, at most {MOST}")
        width = len(inside[1]) if inside and inside[1].startswith("0") else 0
        numbers = [f"{number:0{width}d}" for number in range(first, last + 1)]
        parts += [[pattern[at : brace.start()]], numbers if inside else brace[1].split(",")]
        at = brace.end()
    return ["".join(pieces) for pieces in product(*parts, [pattern[at:]])]


def _listed(pattern: str, options: Options) -> Iterator[tuple[Place, Told]]:
    """The files that a pattern of a glob matches, with what is told of them."""
    system, path = Place(pattern, options).system()
    system.invalidate_cache()
    for name, info in system.glob(path, detail=True).items():
        if info.get("type") != "directory":
            local = not is_address(pattern)
            yield Place(name if local else system.unstrip_protocol(name), options), Told.of(info)


def _texts(options: Any) -> Iterator[str]:
    """The texts in options that are long enough to be secrets."""
    if isinstance(options, Mapping):
        for value in options.values():
            yield from _texts(value)
    elif isinstance(options, str) and len(options) >= 8:
        yield options
