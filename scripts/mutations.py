"""Ways to damage a film or an annotation file, each drawn from a random generator."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytearray, np.random.Generator], bytearray]

HEADER = 4096  # where most containers keep what describes the rest
NESTED = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"udta"}
FOREIGN = (
    b"RIFF\x10\x00\x00\x00AVI LIST", b"\x1a\x45\xdf\xa3\x01\x00\x00\x00", b"FLV\x01\x05\x00",
    b"\x00\x00\x00\x18ftypisom", b"\x47\x40\x00\x10\x00", b"\x00\x00\x01\xba", b"OggS\x00\x02",
    b"ffconcat version 1.0\nfile /etc/passwd\n", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
)  # fmt: skip
HOSTILE_NUMBERS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 20_000, 1_000_000)
HOSTILE_VALUES = (
    "NaN", "Infinity", "-1", "1e999", "1" * 5000, "10000000000000000", "null", "true", '""', "[]",
    "{}", '"../../outside"', '"/etc/passwd"', '"..\\\\..\\\\outside"', '"C:\\\\films\\\\a"',
    '"a\\u0000b"', '"\\ud800"', '"' + "a" * 5000 + '"', '"<script>alert(1)</script>"',
    "[" * 5000 + "]" * 5000,
)  # fmt: skip


def flip_bits(content: bytearray, random: np.random.Generator) -> bytearray:
    """One to 64 bits anywhere."""
    for at in random.integers(0, len(content), 2 ** random.integers(0, 7)):
        content[at] ^= 1 << random.integers(0, 8)
    return content


def flip_header_bits(content: bytearray, random: np.random.Generator) -> bytearray:
    """One to 8 bits of the first or last `HEADER` bytes."""
    for at in random.integers(0, min(HEADER, len(content)), 2 ** random.integers(0, 4)):
        content[at if random.random() < 0.5 else -1 - at] ^= 1 << random.integers(0, 8)
    return content


def cut_off(content: bytearray, random: np.random.Generator) -> bytearray:
    """The end is missing."""
    return content[: random.integers(0, len(content))]


def drop_piece(content: bytearray, random: np.random.Generator) -> bytearray:
    """A piece is missing, and what follows moves up."""
    start, stop = np.sort(random.integers(0, len(content), 2))
    del content[start : min(stop, start + len(content) // 8)]
    return content


def blank_piece(content: bytearray, random: np.random.Generator) -> bytearray:
    """A piece is zeros, as of a download with a hole."""
    start = random.integers(0, len(content))
    length = min(len(content) - start, random.integers(1, 1 + len(content) // 8))
    content[start : start + length] = bytes(int(length))
    return content


def swap_pieces(content: bytearray, random: np.random.Generator) -> bytearray:
    """Two pieces of one length change places."""
    length = int(random.integers(1, 2 + len(content) // 16))
    one, two = random.integers(0, max(1, len(content) - length), 2)
    a, b = content[one : one + length], content[two : two + length]
    content[one : one + len(b)], content[two : two + len(a)] = b, a
    return content


def wrong_header(content: bytearray, random: np.random.Generator) -> bytearray:
    """The first bytes are those of another container."""
    foreign = FOREIGN[random.integers(len(FOREIGN))]
    content[: len(foreign)] = foreign
    return content


def swap_atoms(content: bytearray, random: np.random.Generator) -> bytearray:
    """Two neighbouring boxes of an MP4 change places; elsewhere two pieces."""
    found = atoms(content)
    pairs = [(a, b) for a in found for b in found if a[1] == b[0]]
    if not pairs:
        return swap_pieces(content, random)
    (start, middle), (_, stop) = pairs[random.integers(len(pairs))]
    content[start:stop] = content[middle:stop] + content[start:middle]
    return content


def hostile_number(content: bytearray, random: np.random.Generator) -> bytearray:
    """A number in the head of a box (size, count, length), or of the file, is absurd."""
    small = [(start, stop) for start, stop in atoms(content) if stop - start >= 12]
    start, stop = small[random.integers(len(small))] if small else (0, min(HEADER, len(content)))
    if stop - start < 4:
        return content
    at = start + int(random.integers(0, min(stop - start, 64) - 3))
    at = start + (at - start) // 4 * 4
    number = HOSTILE_NUMBERS[random.integers(len(HOSTILE_NUMBERS))]
    struct.pack_into(">I", content, at, number)
    return content


def atoms(content: bytearray) -> list[tuple[int, int]]:
    """Start and end of the boxes of an MP4 or MOV, nested ones too; [] of another file."""
    if content[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return []
    found: list[tuple[int, int]] = []
    ranges = [(0, len(content))]
    while ranges:
        at, end = ranges.pop()
        while at + 8 <= end:
            size = struct.unpack_from(">I", content, at)[0]
            if size < 8 or at + size > end:
                break
            found.append((at, at + size))
            if bytes(content[at + 4 : at + 8]) in NESTED:
                ranges.append((at + 8, at + size))
            at += size
    return found


def display_matrix(content: bytearray, random: np.random.Generator) -> bytearray:
    """The track is turned, mirrored, or has a matrix of zeros or noise; elsewhere bits flip."""
    headers = [start for start, _ in atoms(content) if content[start + 4 : start + 8] == b"tkhd"]
    if not headers:
        return flip_bits(content, random)
    turns = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]
    mirrored = [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]
    kinds = [*turns, *mirrored, (0, 0, 0, 0), tuple(random.normal(size=4))]
    a, b, c, d = (int(value * 0x10000) for value in kinds[random.integers(1, len(kinds))])
    start = headers[random.integers(len(headers))]
    version = content[start + 8]  # 64-bit times in version 1
    at = start + (60 if version == 1 else 48)
    struct.pack_into(">9i", content, at, a, b, 0, c, d, 0, 0, 0, 0x40000000)
    return content


def edit_list(content: bytearray, random: np.random.Generator) -> bytearray:
    """One to three parts of the track are shown, perhaps behind a pause; elsewhere a piece goes."""
    found = {bytes(content[start + 4 : start + 8]): (start, stop) for start, stop in atoms(content)}
    if not {b"moov", b"mvhd", b"trak", b"tkhd", b"mdhd", b"mdat"} <= found.keys():
        return drop_piece(content, random)
    if found[b"moov"] < found[b"mdat"]:  # what follows would move, and the table of chunks lie
        return hostile_number(content, random)
    movie_rate, track_rate = (
        struct.unpack_from(">I", content, found[name][0] + 20)[0] for name in (b"mvhd", b"mdhd")
    )
    movie_ticks = struct.unpack_from(">I", content, found[b"mvhd"][0] + 24)[0]
    length_s = movie_ticks / max(1, movie_rate)
    entries = [(random.uniform(0, 1), -1)] if random.random() < 0.2 else []
    for _ in range(random.integers(1, 4)):
        start_s = random.uniform(-0.1, length_s)
        entries.append((random.uniform(0, length_s - start_s + 0.5), int(start_s * track_rate)))
    body = struct.pack(">II", 0, len(entries)) + b"".join(
        struct.pack(">IiI", int(shown_s * movie_rate), start, 0x10000) for shown_s, start in entries
    )
    box = struct.pack(">I4sI4s", 16 + len(body), b"edts", 8 + len(body), b"elst") + body
    at, old = found[b"tkhd"][1], found.get(b"edts", (0, 0))
    for name in (b"moov", b"trak"):
        start, stop = found[name]
        struct.pack_into(">I", content, start, stop - start + len(box) - (old[1] - old[0]))
    if old[1]:
        del content[old[0] : old[1]]
        at -= (old[1] - old[0]) if old[0] < at else 0
    content[at:at] = box
    return content


def joined(content: bytearray, random: np.random.Generator) -> bytearray:
    """The file follows itself, from its start or from somewhere on."""
    start = 0 if random.random() < 0.5 else int(random.integers(0, len(content)))
    return content + content[start:]


def hostile_value(content: bytearray, random: np.random.Generator) -> bytearray:
    """A value of an annotation, itself an object or list perhaps, is something else."""
    entries = json.loads(content)
    rows = list(entries.values()) if isinstance(entries, dict) else entries
    row, mark = rows[random.integers(len(rows))], "@damaged@"
    if isinstance(row, dict) and row:
        row[list(row)[random.integers(len(row))]] = mark
    value = HOSTILE_VALUES[random.integers(len(HOSTILE_VALUES))]
    return bytearray(json.dumps(entries).replace(f'"{mark}"', value).encode())


def hostile_key(content: bytearray, random: np.random.Generator) -> bytearray:
    """The key of an entry, often a film's name, is something else."""
    entries = json.loads(content)
    if not isinstance(entries, dict):
        return hostile_value(content, random)
    names = [value for value in HOSTILE_VALUES if value.startswith('"')]
    key = list(entries)[random.integers(len(entries))]
    text = json.dumps(entries).replace(json.dumps(key), names[random.integers(len(names))], 1)
    return bytearray(text.encode())


OF_FILMS: tuple[Mutation, ...] = (
    flip_bits, flip_header_bits, cut_off, drop_piece, blank_piece, swap_pieces, wrong_header,
    swap_atoms, hostile_number, display_matrix, edit_list, joined,
)  # fmt: skip
OF_ANNOTATIONS: tuple[Mutation, ...] = (
    flip_bits, cut_off, drop_piece, blank_piece, swap_pieces, hostile_value, hostile_value,
    hostile_value, hostile_key,
)  # fmt: skip
