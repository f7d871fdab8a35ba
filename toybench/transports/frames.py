"""Arrays and plain values as bytes, one frame after another, in a file or between processes. No pickle."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

HEAD = struct.Struct("<4sIQI")  # mark, bytes of the head, bytes of the body, checksum of both
MARK = b"TBF1"


class Frame(NamedTuple):
    """What is written at once."""

    told: dict[str, Any]  # as JSON can say it
    arrays: list[np.ndarray]


def pack(told: dict[str, Any] | str, arrays: Sequence[Any] = ()) -> list[bytes | memoryview]:
    """A frame as pieces to be written one after another; the arrays are not copied. JSON is taken as it is."""
    whole = [np.asarray(array, order="C") for array in arrays]  # ascontiguousarray makes a number a list of one
    shapes = [[array.dtype.name, [*array.shape]] for array in whole]
    said = told if isinstance(told, str) else json.dumps(told)
    head = f'{{"told": {said}, "arrays": {json.dumps(shapes)}}}'.encode()
    body = [array.reshape(-1).view(np.uint8).data for array in whole]
    check = zlib.crc32(head)
    for piece in body:
        check = zlib.crc32(piece, check)
    return [HEAD.pack(MARK, len(head), sum(piece.nbytes for piece in body), check), head, *body]


def read_frames(file: BinaryIO) -> Iterator[tuple[int, Frame]]:
    """Whole frames from where the file stands, each with where it ends; what is cut off or damaged ends the reading."""
    while len(start := file.read(HEAD.size)) == HEAD.size:
        mark, in_head, in_body, check = HEAD.unpack(start)
        if mark != MARK:
            return
        here = file.tell()
        left = file.seek(0, os.SEEK_END) - here
        file.seek(here)
        if in_head + in_body > left:  # what the head says may be damaged, and is not to be believed
            return
        head, body = file.read(in_head), file.read(in_body)
        if zlib.crc32(body, zlib.crc32(head)) != check:
            return
        yield file.tell(), unpack(head, body)


def unpack(head: bytes, body: bytes) -> Frame:
    """The frame of a head and a body."""
    found = json.loads(head)
    arrays, at = [], 0
    for name, shape in found["arrays"]:
        dtype = jnp.dtype(name)  # jax has names for types that NumPy does not know
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        arrays.append(np.frombuffer(body, np.uint8, size, at).view(dtype).reshape(shape))
        at += size
    return Frame(found["told"], arrays)
