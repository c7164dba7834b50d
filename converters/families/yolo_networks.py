"""A YOLO network, built by our own calls from what a checkpoint says of it.

The checkpoint's description (Ultralytics' ``yaml``) is checked first: Ultralytics evaluates strings in one. Then the layers are
made without weights, compared with the checkpoint's own layers, and given its tensors.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edgecv._internal.extras import require
from edgecv.converters.checkpoints.archive import Archive
from edgecv.converters.checkpoints.module_records import (
    ModuleRecord,
    is_method,
    loaded_tensors,
    module_record,
    module_tree,
    plain,
    tensors_of,
)
from edgecv.converters.checkpoints.records import DamagedPickle, UnknownNetwork, named
from edgecv.converters.checkpoints.stored_tensors import stored_tensor
from edgecv.converters.checkpoints.weights import check_shapes
from edgecv.converters.families import ultralytics_import
from edgecv.converters.families.yolo_description import activation_of, checked_description, is_number
from edgecv.converters.families.yolov8_tasks import HEADS, unread_head

_TASKS = "ultralytics.nn.tasks"
# Of torch's layers: taken over, since training sets them. The others must be equal already.
_TAKEN_OVER = ("eps", "momentum", "inplace")
# Of all layers: they say nothing of what a network computes, or differ between releases.
_BOOKKEEPING = frozenset(
    {"training", "type", "np", "export", "format", "dynamic", "shape", "max_det", "legacy", "xyxy"}
    | {"agnostic_nms", "end2end", "call_super_init", "dump_patches"}
)
_MAX_STRIDE = 1024


def yolo_network(archive: Archive, record: ModuleRecord, origin: str) -> Any:
    """The network as Ultralytics would have loaded it.

    A head that EdgeCV does not decode is an ``UnsupportedSource``; another class, or a description that does not give the layers,
    an ``UnknownNetwork``; damaged tensors are a ``DamagedPickle``.
    """
    layers = module_record(record.children.get("model"))
    if record.cls.module != _TASKS or layers is None:
        raise UnknownNetwork(
            f"its network is a {record.cls}, which cannot be built from a description", record.cls.module
        )
    last = module_record(next(reversed(list(layers.children.values())), None))
    if last is not None and last.cls.name not in HEADS:
        raise unread_head(origin, last.cls.name)
    if record.cls.name not in {head.network for head in HEADS.values()}:
        raise UnknownNetwork(f"its network is a {record.cls}, which cannot be built from a description")
    tree = dict(module_tree(layers))
    description = checked_description(plain(record.attributes.get("yaml")))
    tensors = tensors_of(layers)
    network = _empty_network(record, description, modules=len(tree))
    if _has_norms(network.model.state_dict()) and not _has_norms(tensors):
        _fold(network)
    _compare(network.model, tree)
    check_shapes(network.model.state_dict(), tensors)
    network.model.load_state_dict(loaded_tensors(archive, tensors), strict=True, assign=True)
    _set_strides(network, archive, layers, record)
    return network


def _has_norms(names: Iterable[str]) -> bool:
    return any(name.endswith(".bn.weight") for name in names)


def _empty_network(record: ModuleRecord, description: dict[str, Any], modules: int) -> Any:
    """The network with tensors that have a shape but no memory."""
    tasks, torch = ultralytics_import.tasks(), require("torch", "convert")
    activation = description.pop("activation", None)
    network = tasks.BaseModel.__new__(getattr(tasks, record.cls.name))
    torch.nn.Module.__init__(network)
    try:
        with torch.device("meta"), _ranges(), _default_activation(activation), _at_most(modules * 4 + 256):
            network.model, network.save = tasks.parse_model(dict(description), description["channels"], verbose=False)
    except DamagedPickle:
        raise
    except Exception as error:  # whatever a layer says of arguments that do not fit it
        raise UnknownNetwork(f"its layers cannot be built from its description ({error})") from error
    settings = plain(record.attributes.get("args"))
    network.yaml = description
    network.names = plain(record.attributes.get("names"))
    network.task = plain(record.attributes.get("task"))
    network.args = settings if isinstance(settings, dict) else {}
    network.inplace = True
    return network


def _ranges() -> Any:
    """Lets ``torch.arange`` have memory: without, torch loads its tracing world for it, which takes two seconds."""
    torch = require("torch", "convert")

    class Ranges(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]
        def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = dict(kwargs or {})
            return function(*args, **(given | {"device": "cpu"} if function is torch.arange else given))

    return Ranges()


@contextlib.contextmanager
def _default_activation(text: Any) -> Iterator[None]:
    """The activation of a description, made without evaluating it. Ultralytics keeps it in a class, for every later network."""
    conv = require("ultralytics.nn.modules", "convert").Conv
    before = conv.default_act
    if text is not None:
        conv.default_act = activation_of(text)
    try:
        yield
    finally:
        conv.default_act = before


@contextlib.contextmanager
def _at_most(modules: int) -> Iterator[None]:
    """Stop a description that would build more layers than the checkpoint has."""
    torch_modules = require("torch.nn.modules.module", "convert")
    count = 0

    def counted(*_of: Any) -> None:
        nonlocal count
        count += 1
        if count > modules:
            raise UnknownNetwork("its description has more layers than its network")

    handle = torch_modules.register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


def _fold(network: Any) -> None:
    """Give the network the layers that it has once its batch norms are folded into its convolutions."""
    torch, modules = require("torch", "convert"), require("ultralytics.nn.modules", "convert")
    merging = [module for module in network.model.modules() if hasattr(module, "fuse_convs")]
    inside = {part for module in merging for part in module.modules()}
    for layer in list(network.model.modules()):
        if layer not in inside and type(layer) in (modules.Conv, modules.DWConv):
            # What Ultralytics' own `fuse` does to them, without the arithmetic, which is slow without memory.
            layer.conv.bias = torch.nn.Parameter(torch.empty(layer.conv.out_channels, device="meta"))
            del layer.bn
            layer.forward = layer.forward_fuse
    with torch.device("meta"), _ranges():
        network.fuse(verbose=False)


def _compare(built: Any, tree: Mapping[str, ModuleRecord]) -> None:
    """Hold the built layers against the checkpoint's, and take over what training sets."""
    made = dict(_all_modules(built))
    for path in sorted(made.keys() ^ tree.keys()):
        raise UnknownNetwork(f"its layer {path} is not as its description says")
    for path, module in made.items():
        record = tree[path]
        kind = type(module)
        if record.cls.name != kind.__name__ or not record.cls.module.startswith(("torch.nn.", "ultralytics.nn.")):
            raise UnknownNetwork(f"its layer {path} is a {record.cls}, and a {kind.__name__} by its description")
        for name, value in record.attributes.items():
            _compare_attribute(f"{path}.{name}", module, name, value)


def _all_modules(root: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, root
    for name, child in root._modules.items():
        if child is not None:
            yield from _all_modules(child, f"{path}.{name}" if path else name)


def _compare_attribute(path: str, module: Any, name: str, value: Any) -> None:
    if "hooks" in name and name.startswith("_"):
        if value:
            raise UnknownNetwork(f"it has hooks ({path}): functions that run beside a layer")
        return
    if name in _BOOKKEEPING:
        return
    own = inspect.getattr_static(type(module), name, None)
    if callable(own) or isinstance(own, property):
        if not is_method(value):
            raise UnknownNetwork(f"{path} puts {named(value)} in the place of the layer's own")
        return
    held = vars(module).get(name)
    if name == "momentum" and value is None:  # a plain average over the batches of training, which is over
        return
    if name in _TAKEN_OVER and is_number(held) and is_number(value):
        setattr(module, name, value)
    elif not _same(held, value, strictly=name in vars(module) and type(module).__module__.startswith("torch.nn.")):
        raise UnknownNetwork(f"{path} is {_said(value)}, and {_said(held)} by its description")


def _same(held: Any, value: Any, *, strictly: bool) -> bool:
    """Whether a layer has the setting that the checkpoint's has.

    ``strictly``: ``None`` is a setting, too (``Upsample.size``), and a setting is nothing else. Not so in Ultralytics' layers,
    whose releases differ.
    """
    if _is_setting(held) and _is_setting(value):
        return bool(_comparable(held) == _comparable(value))
    if strictly and (held is None or _is_setting(held)):
        return value is None and held is None
    return True


def _said(value: Any) -> str:
    return str(value)[:60] if value is None or _is_setting(value) else named(value)


def _is_setting(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 64 and all(isinstance(item, (int, float, str)) for item in value)
    return isinstance(value, (int, float, str))


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _set_strides(network: Any, archive: Archive, layers: ModuleRecord, record: ModuleRecord) -> None:
    """Strides are plain attributes of a network and of its head."""
    head = network.model[-1]
    if "stride" in vars(head):
        last = module_record(layers.children[str(len(network.model) - 1)])
        head.stride = _strides(archive, last.attributes.get("stride") if last is not None else None)
    network.stride = head.stride if "stride" in vars(head) else _strides(archive, record.attributes.get("stride"))
    for path, module in _all_modules(network.model):
        for name, value in vars(module).items():
            if getattr(value, "is_meta", False):
                raise UnknownNetwork(f"its layer {path} has a tensor {name} that is not among its weights")


def _strides(archive: Archive, value: Any) -> Any:
    stored = stored_tensor(value)
    if stored is None or len(stored.size) != 1 or not 0 < stored.elements <= 8:
        raise UnknownNetwork("its network has no strides")
    strides = archive.tensor(stored).float()
    if not all(1 <= stride <= _MAX_STRIDE and stride == int(stride) for stride in strides.tolist()):
        raise UnknownNetwork("its network has strides that are no sizes")
    return strides
