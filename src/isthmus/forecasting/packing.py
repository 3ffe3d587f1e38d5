"""Arrays in JSON: compressed bytes in base64, exact and little-endian."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack(array: NDArray[Any]) -> dict[str, Any]:
    """A JSON value that holds an array of float32, float64 or int64."""
    kept = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    data = base64.b64encode(zlib.compress(kept.tobytes(), 1)).decode()
    return {"type": kept.dtype.str, "shape": list(kept.shape), "data": data}


def unpack(value: dict[str, Any]) -> NDArray[Any]:
    """The array of `pack`."""
    flat = np.frombuffer(zlib.decompress(base64.b64decode(value["data"])), np.dtype(value["type"]))
    return flat.reshape(value["shape"]).copy()
