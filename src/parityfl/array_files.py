"""Files of arrays that hold a SHA-256 of their content: a torn or changed one is never taken for a good one."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from parityfl.files import replace_file

Arrays = dict[str, NDArray[Any]]

NOTHING: Mapping[str, Any] = MappingProxyType({})


class DamagedError(Exception):
    """A file is missing, torn or changed; the message says which of these, and not what file."""


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], document: Mapping[str, Any] = NOTHING, *, durable: bool = False
) -> None:
    """Replace a file, in one step, by one that holds named arrays.

    Args:
        path: the file; its folder is there.
        arrays: what it is to hold, of any numeric type and shape.
        document: what else, as JSON values.
        durable: see `replace_file`.

    Raises:
        OSError: it cannot be written; what was there before still is.
    """
    plain = {name: np.asarray(array, order="C") for name, array in sorted(arrays.items())}
    text = json.dumps(dict(document), sort_keys=True)
    replace_file(path, save(plain, metadata={"document": text, "sha256": _digest(plain, text)}), durable=durable)


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the document of a file.

    Raises:
        DamagedError: they are not what was written.
    """
    try:
        with safe_open(path, framework="numpy") as handle:
            arrays = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 -- no mapping
            metadata = handle.metadata() or {}
        if _digest(arrays, metadata["document"]) != metadata["sha256"]:
            raise DamagedError("does not match its checksum")
        document: dict[str, Any] = json.loads(metadata["document"])
    except FileNotFoundError:
        raise DamagedError("is missing") from None
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DamagedError(f"is damaged ({error})") from None
    return arrays, document


def _digest(arrays: Arrays, text: str) -> str:
    digest = sha256(text.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}/{array.dtype.name}/{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
