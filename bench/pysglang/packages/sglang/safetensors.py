"""Reads and writes safetensors files without any package: eight bytes with the length of a JSON header, the header, the data."""
import json
import struct
from pathlib import Path


def header(path):
    """The header without its metadata, and where the data begins."""
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        tensors = json.loads(f.read(length))
    tensors.pop("__metadata__", None)
    return tensors, 8 + length


def save(path, tensors):
    """tensors: name to (type, shape, bytes)."""
    at, head = 0, {}
    for name, (kind, shape, data) in tensors.items():
        head[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            f.write(data)
    Path(path).chmod(0o600)  # as SGLang's come out


def part_of(entry, rank, tp):
    """The shape and the bytes (from, to) of a rank's part of a tensor: rows where they can be shared out, else all of it."""
    begin, end = entry["data_offsets"]
    shape = list(entry["shape"])
    if len(shape) < 2 or shape[0] % tp:
        return shape, begin, end
    step = (end - begin) // tp
    return [shape[0] // tp, *shape[1:]], begin + rank * step, begin + (rank + 1) * step
