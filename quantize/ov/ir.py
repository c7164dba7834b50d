"""Writes OpenVINO models as IR files."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Collection
from itertools import count
from pathlib import Path
from typing import Any

from edgecv._internal.extras import require

_GENERATED = re.compile(r"([A-Z][A-Za-z0-9]*)_(\d+)(?![A-Za-z0-9])")
_LONGEST_NUMBER = 5  # digits: OpenVINO counts so far within a second
_NUMBER = re.compile(r"_(\d+)")
_DESCRIPTION_BYTES = 2_000_000  # of the .xml, which holds no weights


def save_ir(model: Any, path: Path, half: bool = False, kept: Collection[str] = ()) -> tuple[Path, Path]:
    """Write a model as ``.xml`` and ``.bin``, its weights in fp16 with ``half``; the two paths.

    The same model is the same bytes, whatever the process converted before: nodes that OpenVINO named get other names.

    Args:
        model: Its nodes are renamed, but for those in ``kept``.
        path: Of the ``.xml``.
        half: Store weights in fp16.
        kept: Names that stay: those that the source of the model gave.

    Raises:
        OSError: the disk is full. OpenVINO's writer reports a ``RuntimeError`` without a reason; what it takes back does not fit.
    """
    openvino = require("openvino", "convert")
    _name_in_order(model, frozenset(kept))
    try:
        openvino.save_model(model, str(path), compress_to_fp16=half)
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free > _constant_bytes(model) + _DESCRIPTION_BYTES:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    return path, path.with_suffix(".bin")


def names_of(model: Any) -> frozenset[str]:
    """The names of all nodes of a model."""
    return frozenset(op.get_friendly_name() for op in model.get_ops())


def number_above(names: Collection[str]) -> None:
    """Let OpenVINO number the nodes that it makes from now on above those of ``names``: so it is known which names are its own."""
    made = require("openvino", "convert").opset13
    numbers = [
        int(found[2]) for name in names if (found := _GENERATED.match(name)) and len(found[2]) <= _LONGEST_NUMBER
    ]
    most = max(numbers, default=-1)
    while int(made.constant(0).get_name().rpartition("_")[2]) < most:
        pass


def _name_in_order(model: Any, kept: frozenset[str]) -> None:
    """Number the nodes that OpenVINO named in the order of the graph.

    It calls a node by its type and by how many nodes the process has made so far, such as ``Reshape_182819``, and what belongs to
    that node ``Reshape_182819/...``. So a second conversion in a process, or another order of its threads, gave other files.
    """
    new: dict[str, str] = {}
    taken = {number for name in kept for number in _NUMBER.findall(name)}
    numbers = (number for number in map(str, count()) if number not in taken)
    for op in model.get_ordered_ops():
        name = op.get_friendly_name()
        made = _GENERATED.match(name)
        if made is None or name in kept or made[0] in kept:
            continue
        if made[0] not in new:
            new[made[0]] = f"{made[1]}_{next(numbers)}"
        op.set_friendly_name(new[made[0]] + name[made.end() :])


def _constant_bytes(model: Any) -> int:
    return sum(int(op.get_byte_size()) for op in model.get_ops() if op.get_type_name() == "Constant")
