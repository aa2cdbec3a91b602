"""What an offline run of Weights & Biases has written, read back from its .wandb file."""

import json
import struct

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, BEGIN = 32768, 7  # bytes of a block, and of the file's own beginning
HEADER = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, LAST = 1, 4  # the kinds of parts that end a record


def records(folder):
    """The records of the only offline run in a folder."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    content = path.read_bytes()
    at, part = BEGIN, b""
    while at + HEADER.size <= len(content):
        if (left := BLOCK - at % BLOCK) < HEADER.size:  # nothing stands in the end of a block
            at += left
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        at += HEADER.size + length
        part += content[at - length : at]
        if kind in (WHOLE, LAST):
            yield Record.FromString(part)
            part = b""


def logged(folder):
    """Name → the values that were logged under it, in their order; one with parts is a dict."""
    found = {}
    for record in records(folder):
        values = {}
        for item in record.history.item:
            value = json.loads(item.value_json)
            if len(item.nested_key) > 1:
                values.setdefault(item.nested_key[0], {})[item.nested_key[1]] = value
            else:
                values[item.key or item.nested_key[0]] = value
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


def artifacts(folder):
    """Artifacts as they were logged, by their type."""
    return {r.artifact.type: r.artifact for r in records(folder) if r.artifact.type}


def media(folder, path):
    """The file of a picture or a table that was logged under a path."""
    (run,) = folder.glob("wandb/offline-run-*")
    return run / "files" / path
