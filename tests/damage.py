"""Damage as disks and networks do it."""


def flip(path, where=0.5, count=4096):
    """Invert bytes of a file, from a share of its length on."""
    content = bytearray(path.read_bytes())
    start = int(len(content) * where)
    content[start : start + count] = bytes(255 - b for b in content[start : start + count])
    path.write_bytes(content)
