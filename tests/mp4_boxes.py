"""Edit lists and display matrices, written into MP4 and MOV files whose index is at their end."""

import struct

ONE = 0x10000  # 16.16 fixed point


def box(content, *path):
    """Start and end of the box at a path of names, the first of each name."""
    start, end = 0, len(content)
    for depth, name in enumerate(path):
        at = start + (8 if depth else 0)
        while content[at + 4 : at + 8] != name:
            at += struct.unpack_from(">I", content, at)[0]
            assert at < end, f"{path} is not there"
        start, end = at, at + struct.unpack_from(">I", content, at)[0]
    return start, end


def set_matrix(path, a, b, c, d):
    """Let (x, y) be shown at (a·x + c·y, b·x + d·y)."""
    content = bytearray(path.read_bytes())
    start, _ = box(content, b"moov", b"trak", b"tkhd")
    numbers = [round(value * ONE) for value in (a, b, 0, c, d, 0, 0, 0)]
    struct.pack_into(">9i", content, start + 48, *numbers, 0x40000000)
    path.write_bytes(content)
    return path


def set_edits(path, *edits):
    """Show of a track these parts, one after the other: (duration, start) in seconds.

    The start counts from the first sample's time; None shows nothing so long.
    """
    content = bytearray(path.read_bytes())
    edts, tkhd = box(content, b"moov", b"trak", b"edts"), box(content, b"moov", b"trak", b"tkhd")
    (first,) = struct.unpack_from(">i", content, edts[0] + 28)  # where the only edit starts now
    rates = [
        struct.unpack_from(">I", content, box(content, *names)[0] + 20)[0]
        for names in ((b"moov", b"mvhd"), (b"moov", b"trak", b"mdia", b"mdhd"))
    ]
    body = struct.pack(">II", 0, len(edits))
    for duration_s, start_s in edits:
        start = -1 if start_s is None else first + round(start_s * rates[1])
        body += struct.pack(">IiI", round(duration_s * rates[0]), start, ONE)
    new = struct.pack(">I4sI4s", 16 + len(body), b"edts", 8 + len(body), b"elst") + body
    for names in ((b"moov",), (b"moov", b"trak")):
        start, end = box(content, *names)
        assert start > box(content, b"mdat")[0], "the index must be at the end"
        struct.pack_into(">I", content, start, end - start + len(new) - (edts[1] - edts[0]))
    del content[slice(*edts)]
    content[tkhd[1] : tkhd[1]] = new
    path.write_bytes(content)
    return path
