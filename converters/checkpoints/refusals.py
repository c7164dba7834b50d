"""Why a checkpoint is not read, in the user's words, and what to do instead."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from edgecv._internal.quiet import quiet
from edgecv.converters.checkpoints.records import DamagedPickle, UnknownNetwork
from edgecv.errors import UnsupportedSource

_YOLO_NAME = re.compile(r"(?:model\.)*\d+\.(?:conv|cv\d|bn|m|dfl|linear)\b")
# By whether its blocks are bottlenecks, and blocks in the third stage.
_RESNETS: Mapping[tuple[bool, int], str] = MappingProxyType(
    {
        (False, 2): "resnet18",
        (False, 6): "resnet34",
        (True, 6): "resnet50",
        (True, 23): "resnet101",
        (True, 36): "resnet152",
    }
)
_BLOCK = re.compile(r"(?:^|\.)layer3\.(\d+)\.conv1\.weight$")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Whatever is found wrong inside the block is an ``UnsupportedSource`` for the file."""
    try:
        with quiet():
            yield
    except UnknownNetwork as error:
        raise _unbuilt(path, error) from error
    except (DamagedPickle, OSError) as error:
        raise UnsupportedSource(
            f"{path} cannot be read as a checkpoint: {error}.",
            "Give the .pt that training wrote. If you trust whoever made it: --trust-pickle runs the code in it.",
        ) from error


def _unbuilt(path: Path, error: UnknownNetwork) -> UnsupportedSource:
    """The refusal of a network that cannot be built: with its code at hand it may be trusted, else nothing helps here."""
    package = error.module.partition(".")[0]
    if not package or (package != "__main__" and _is_installed(package)):
        return UnsupportedSource(
            f"{path} cannot be read without running code: {error}.",
            "EdgeCV builds Ultralytics' networks from their description. If you trust whoever made this file: --trust-pickle runs "
            "the code in it.",
        )
    own = package == "__main__"
    where = "the script that saved it" if own else f"the Python package '{package}', which is not installed here"
    hint = "Export the network to .onnx where its code is, and convert that."
    if error.module in ("models.yolo", "models.common"):  # as the repositories call them
        hint = f"It is of the YOLOv5 or YOLOv7 repository. {hint} Or train Ultralytics' yolov5nu.pt, which has YOLOv8's head."
    return UnsupportedSource(f"{path} cannot be read: {error}; its code is in {where}.", hint)


def _is_installed(package: str) -> bool:
    """Whether a package can be imported. A plain folder of that name, which Python takes for an empty package, does not count."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def weights_alone(path: Path, names: Sequence[str]) -> UnsupportedSource:
    """The refusal of a state dict where a network was asked for, with what it is likely to be of."""
    blocks = [int(found[1]) for name in names if (found := _BLOCK.search(name))]
    deep = any(name.endswith("layer1.0.conv3.weight") for name in names)
    resnet = _RESNETS.get((deep, max(blocks, default=-1) + 1))
    if resnet:
        what, hint = "a ResNet", f"Name the network: edgecv convert {resnet} --weights {path.name}"
    elif any(_YOLO_NAME.match(name) for name in names):
        what = "a YOLO network"
        hint = (
            "Give the checkpoint that training wrote (weights/best.pt holds both); or load them into the network and save that: "
            'model = YOLO("yolov8n.yaml"); model.model.load_state_dict(...); model.save("whole.pt").'
        )
    else:
        what = f"a network ({len(names)} tensors: {names[0]} ...)"
        hint = (
            f"Name the network: edgecv convert mobile_sam --weights {path.name} (or sam_b, sam2.1_t, resnet50 ...); of any other "
            "network export an .onnx."
        )
    return UnsupportedSource(f"{path} holds the weights of {what} without the network itself (a state dict).", hint)
