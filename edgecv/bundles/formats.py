"""What each model format consists of: the files that a runtime of it opens, so that nothing beside them is read unseen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from edgecv.bundles.opened_files import OpenedModel, leads_outside
from edgecv.errors import BundleError
from edgecv.runtimes.onnx_files import external_files_in, is_plain

_Beside = Callable[[OpenedModel], frozenset[str]]


def _weights(model: OpenedModel) -> frozenset[str]:
    """OpenVINO takes the ``.bin`` of the same name."""
    return frozenset({model.path.with_suffix(".bin").name})


def _external(model: OpenedModel) -> frozenset[str]:
    """External data of ONNX, by the locations that stand in the file."""
    return external_files_in(model.main.descriptor, model.path.name)


# Format -> suffix of the main file and the names beside it that its runtime reads. A format of a plug-in is not listed here:
# of it, the files that the bundle lists are checked.
_FORMATS: Mapping[str, tuple[str, _Beside]] = MappingProxyType(
    {"onnx": (".onnx", _external), "openvino": (".xml", _weights), "tflite": (".tflite", lambda _: frozenset())}
)


def check_files(model_format: str, model: OpenedModel) -> None:
    """Check that a model consists of exactly the files that its format asks for.

    Raises:
        BundleError: one is missing, too many, has another name or leads outside the model's folder.
        SessionError: an ONNX file is no protobuf message.
    """
    if model_format not in _FORMATS:
        return
    suffix, beside = _FORMATS[model_format]
    name = model.path.name
    if model.path.suffix != suffix:
        raise BundleError(f"{name} is not a {suffix} file, as '{model_format}' asks for.", "Convert the model again.")
    wanted, listed = beside(model), frozenset(model.beside)
    for location in sorted(wanted):
        if not is_plain(location):
            raise leads_outside(name, location)
    if wanted - listed:
        raise BundleError(
            f"{name} refers to {min(wanted - listed)!r}, which the bundle does not list.", "Convert the model again."
        )
    if listed - wanted:
        raise BundleError(
            f"{name} does not use {min(listed - wanted)!r}, which the bundle lists as a part of it.",
            "Convert the model again.",
        )
