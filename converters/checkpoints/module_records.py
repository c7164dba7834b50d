"""What an inert checkpoint says of a torch module: its class, its plain attributes, its tensors and its parts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgecv.converters.checkpoints.archive import Archive
from edgecv.converters.checkpoints.records import Call, DamagedPickle, Global, Instance, everything_in, named
from edgecv.converters.checkpoints.stored_tensors import StoredTensor, stored_tensor

MAX_MODULES = 20_000  # YOLOv8x has 400, SAM ViT-H 1,000
# A value that a pickle holds once may stand in it in many places, and each place is copied: a kilobyte could unfold to gigabytes.
_MOST_PARTS = 1_000_000  # attributes and tensors of all modules; YOLOv8x has 20,000
_MOST_VALUES = 1_000_000  # of what is taken over as plain values
_MAX_DEPTH = 64
# What torch keeps in every module beside its attributes.
_CONTAINERS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
_METHODS = ("forward", "forward_fuse")
# Calls that only make data. They are not made here either; a file that would call anything else of Python or of torch is refused,
# since no honest checkpoint does.
_DATA_CALLS = frozenset(
    {
        *(f"torch._utils._rebuild_{name}" for name in ("tensor", "tensor_v2", "tensor_v3", "parameter")),
        "torch._utils._rebuild_parameter_with_state",
        "torch.device",
        "torch.serialization._get_layout",
        "torchvision.transforms.functional.InterpolationMode",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
        "numpy.dtype",
        *(f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")),
        *(f"pathlib._local.{name}" for name in ("PosixPath", "WindowsPath", "Path")),
        *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
        *(f"collections.{name}" for name in ("Counter", "defaultdict", "deque")),
        *(f"builtins.{name}" for name in ("slice", "complex", "bytearray", "range", "object")),
        "copyreg._reconstructor",
        "functools.partial",
        "argparse.Namespace",
        "types.SimpleNamespace",
        "decimal.Decimal",
        "fractions.Fraction",
        "uuid.UUID",
    }
)
_WATCHED = frozenset({*sys.stdlib_module_names, "torch", "torchvision", "numpy", "ultralytics"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModuleRecord:
    """A module that was not made."""

    cls: Global
    attributes: Mapping[str, Any]  # what it holds beside tensors and parts, as inert data
    tensors: Mapping[str, Any]  # records of its parameters and persistent buffers, by name
    children: Mapping[str, Any]  # its parts, by name


def module_record(value: Any) -> ModuleRecord | None:
    """A record of a module; ``None`` where the value stands for something else."""
    if not isinstance(value, Instance) or not isinstance(value.maker, Global) or not isinstance(value.state, dict):
        return None
    state = value.state
    parameters, buffers, children = (_by_name(state.get(name)) for name in _CONTAINERS[:3])
    if parameters is None or buffers is None or children is None:
        return None
    passing = state.get("_non_persistent_buffers_set") or ()
    tensors = {**parameters, **{name: item for name, item in buffers.items() if name not in passing}}
    return ModuleRecord(
        cls=value.maker,
        attributes={k: v for k, v in state.items() if isinstance(k, str) and k not in _CONTAINERS},
        tensors={name: item for name, item in tensors.items() if item is not None},
        children={name: item for name, item in children.items() if item is not None},
    )


def _by_name(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) and all(isinstance(name, str) for name in value) else None


def module_tree(root: ModuleRecord) -> Iterator[tuple[str, ModuleRecord]]:
    """Every module by its path, the root (``""``) first; ``DamagedPickle`` where they are no tree, or too many."""
    waiting: list[tuple[str, ModuleRecord, int]] = [("", root, 0)]
    count, parts = 0, 0
    while waiting:
        path, record, depth = waiting.pop()
        count += 1
        if count > MAX_MODULES or depth > _MAX_DEPTH:
            raise DamagedPickle(f"it holds more than {MAX_MODULES:,} modules, or one holds itself")
        yield path, record
        for name, value in record.children.items():
            child = module_record(value)
            if child is None:
                raise DamagedPickle(f"{named(value)} stands where a module belongs")
            parts += len(child.attributes) + len(child.tensors) + len(child.children)
            if parts > _MOST_PARTS:
                raise DamagedPickle(f"its modules have more than {_MOST_PARTS:,} attributes and tensors")
            waiting.append((f"{path}.{name}" if path else name, child, depth + 1))


def tensors_of(root: ModuleRecord) -> dict[str, StoredTensor]:
    """Every parameter and persistent buffer by its name in a state dict; ``DamagedPickle`` where one is no plain tensor."""
    found: dict[str, StoredTensor] = {}
    for path, record in module_tree(root):
        for name, value in record.tensors.items():
            stored = stored_tensor(value)
            if stored is None:
                raise DamagedPickle(f"{named(value)} stands where a tensor belongs")
            found[f"{path}.{name}" if path else name] = stored
    return found


def loaded_tensors(archive: Archive, wanted: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """The tensors themselves; ``DamagedPickle`` where they are larger than the file, or one lies outside its storage."""
    if sum(stored.bytes for stored in wanted.values()) > archive.file_bytes:
        raise DamagedPickle("its tensors are larger than the file")
    return {name: archive.tensor(stored) for name, stored in wanted.items()}


def check_calls(content: Any) -> None:
    """Raise ``DamagedPickle`` for a checkpoint that would have called something that no honest one does.

    Nothing is called in any case. But whoever wrote such a file meant it to run, and its owner should know.
    """
    for value in everything_in(content):
        if isinstance(value, Call) and not _only_data(value):
            raise DamagedPickle(f"it would call {named(value.maker)}, which no checkpoint needs")


def _only_data(call: Call) -> bool:
    if not isinstance(call.maker, Global):
        return False
    if str(call.maker) == "builtins.getattr":
        return is_method(call)
    return str(call.maker) in _DATA_CALLS or call.maker.module.partition(".")[0] not in _WATCHED


def is_method(value: Any) -> bool:
    """Whether a value is a module's ``forward`` or ``forward_fuse``: a fused layer is stored with it."""
    return (
        isinstance(value, Call)
        and str(value.maker) == "builtins.getattr"
        and len(value.arguments) == 2
        and value.arguments[1] in _METHODS
        and isinstance(value.arguments[0], (Global, Instance))
    )


_PLAIN = frozenset((str, int, float, bool, bytes, type(None)))


def plain(value: Any, depth: int = 12) -> Any:
    """A value without its records: what is no number, text, list or dictionary is left out.

    A settings object (``IterableSimpleNamespace``, ``argparse.Namespace``) comes as the dictionary of its attributes. A value that
    unfolds to more values than any checkpoint has is a ``DamagedPickle``.
    """
    count = 0

    def copied(value: Any, depth: int) -> Any:
        nonlocal count
        if type(value) in _PLAIN:
            return value
        if isinstance(value, Instance):
            value = value.state
        if not depth or not isinstance(value, (list, tuple, dict)):
            return None
        count += len(value)
        if count > _MOST_VALUES:
            raise DamagedPickle(f"it unfolds to more than {_MOST_VALUES:,} values")
        if isinstance(value, dict):
            return {k: copied(v, depth - 1) for k, v in value.items() if type(k) in _PLAIN and is_plain(v)}
        return type(value)(copied(item, depth - 1) for item in value if is_plain(item))

    return copied(value, depth)


def is_plain(value: Any) -> bool:
    """Whether something is left of a value in ``plain``."""
    return type(value) in _PLAIN or isinstance(value, (list, tuple, dict)) or _is_settings(value)


def _is_settings(value: Any) -> bool:
    return isinstance(value, Instance) and isinstance(value.state, dict) and module_record(value) is None
