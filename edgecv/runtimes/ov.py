"""OpenVINO: the one module that compiles OpenVINO models at run time."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.foreign import foreign_errors
from edgecv.bundles.opened_files import OpenedModel, path_of, readable_path
from edgecv.errors import DeviceError, SessionError
from edgecv.media.image_files import utf8_name
from edgecv.protocols import Array, RuntimeAdapter, Tensors
from edgecv.runtimes import DISTRIBUTIONS
from edgecv.runtimes.accelerators.openvino_device import (
    PRECISION_HINT,
    cache_folder_of,
    check_config,
    chosen_devices,
    find_device,
    fix_shapes,
    is_from_cache,
    properties,
)
from edgecv.runtimes.extra_options import check_extra
from edgecv.runtimes.feeds import check_feeds
from edgecv.specs import RuntimeOptions, TensorSpec

_DTYPES: Mapping[str, str] = MappingProxyType(
    {"f32": "float32", "f16": "float16", "u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64"}
)
_FLOATS: Mapping[str, str] = MappingProxyType({"f32": "float32", "f16": "float16", "bf16": "bfloat16"})
_HEAD_BYTES = 256
_FIRST_USE = threading.Lock()


class OpenVinoSession(RuntimeAdapter):
    """A compiled OpenVINO model; ``run`` may be called from several threads, each gets its own request.

    Options: ``device`` is ``cpu``, ``gpu``, ``npu``, or ``auto``, which takes the best of them; ``extra`` takes ``config``, a
    mapping of OpenVINO properties. ``cache_dir`` keeps compiled models; where it is not given nothing is kept for the CPU, and
    what was compiled for the others lies in EdgeCV's own cache.

    By itself OpenVINO computes in bfloat16 on CPUs that can, and in float16 on Arm, the float layers of INT8 files too. Here a CPU
    computes in float32 unless ``precision`` is ``bf16``; files of ``fp16`` in float16 where the CPU can.

    Attributes:
        float_precision: What the compiled model says that it computes float layers in; empty where the device does not say.
        providers: The device; after ``AUTO`` the one that it chose.
        from_cache: Whether an accelerator runs what an earlier process compiled.
    """

    package: ClassVar[str] = "openvino"
    extra: ClassVar[str] = "openvino"
    formats: ClassVar[tuple[str, ...]] = ("openvino",)
    suffixes: ClassVar[tuple[str, ...]] = (".xml",)
    distributions: ClassVar[tuple[str, ...]] = DISTRIBUTIONS["openvino"]
    takes_opened_files: ClassVar[bool] = True
    takes_bf16: ClassVar[bool] = True

    def __init__(
        self,
        model: Path | OpenedModel,
        options: RuntimeOptions,
        inputs: tuple[TensorSpec, ...] = (),
        outputs: tuple[TensorSpec, ...] = (),
    ) -> None:
        """Read and compile ``model``; without ``inputs`` and ``outputs`` the specs are what the file says, with empty roles.

        Raises:
            MissingDependency: openvino is not installed.
            ConfigError: ``extra`` is wrong, or the folder for compiled models cannot be written.
            DeviceError: the device asked for is not there, or has no bfloat16; another one is never taken instead.
            SessionError: the file is damaged or not a model that this release can run.
        """
        path = path_of(model)
        utf8_name(options.cache_dir, SessionError)
        check_extra(options.extra, self.package, ("config",))
        check_config(options.extra.get("config", {}))
        openvino = require(self.package, self.extra)
        _meet_numpy(openvino)
        core = openvino.Core()
        device = find_device(options.device, lambda: core.available_devices)
        with foreign_errors(
            SessionError, f"OpenVINO cannot load {path.name}", "Convert the model again, or update openvino."
        ):
            network = core.read_model(*_names(model))
            if device == "CPU":
                asked = _properties(options) | _precision(core, device, options)
            else:
                fix_shapes(network, inputs, device, path.name)
                asked = _of_accelerator(core, device, model, options, openvino.__version__)
            compiled = core.compile_model(network, device, asked)
            ports = {_name(port, f"output_{at}"): port for at, port in enumerate(compiled.outputs)}
            self.inputs = inputs or tuple(_spec(_name(p, f"input_{at}"), p) for at, p in enumerate(compiled.inputs))
            self.outputs = outputs or tuple(_spec(name, port) for name, port in ports.items())
            self._ports = {spec.name: ports[spec.name] for spec in self.outputs}
            self.metadata = _metadata(network)
        self.providers: tuple[str, ...] = chosen_devices(compiled, device)
        self.from_cache = device != "CPU" and is_from_cache(compiled)
        self.float_precision = _float_precision(compiled, self.providers[-1])
        self._compiled: Any = compiled
        self._requests = threading.local()

    def run(self, feeds: Tensors) -> dict[str, Array]:
        """Compute the outputs by name; see ``edgecv.protocols.Session``."""
        compiled, requests = self._compiled, self._requests  # another thread may close the session meanwhile
        if compiled is None:
            raise SessionError("The session is closed.", "Load the model again.")
        check_feeds(feeds, self.inputs)
        request = getattr(requests, "request", None)
        if request is None:
            request = requests.request = compiled.create_infer_request()
        with foreign_errors(SessionError, "OpenVINO failed", "Convert the model again."):
            found = request.infer(dict(feeds), share_inputs=True)
        return {name: found[port] for name, port in self._ports.items()}

    def close(self) -> None:
        """Release the model; a second call does nothing."""
        self._compiled = None
        self._requests = threading.local()


def _meet_numpy(openvino: Any) -> None:
    """Turn an array into a tensor and back, one thread at a time.

    OpenVINO's bindings build their tables of types, and load NumPy's interface, when the first tensor is made. They let go of the
    interpreter's lock while they hold a lock of C++: two threads that made the first tensors together waited for each other for
    ever (2026.4). From the second time on this takes microseconds.
    """
    with _FIRST_USE:
        openvino.Tensor(np.zeros(1, np.float32)).data.tolist()


def _names(model: Path | OpenedModel) -> list[str]:
    """By which names OpenVINO opens the graph and, of checked files, the weights; of a bare ``.xml`` it takes the one beside.

    Raises:
        SessionError: the file is not XML. OpenVINO would try its readers of other formats on it.
    """
    main = readable_path(model)
    try:
        with main.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise SessionError(f"{path_of(model)} cannot be read: {error.strerror}.", "Check the path.") from error
    if not head.lstrip().startswith((b"<?xml", b"<net")):
        raise SessionError(f"{path_of(model).name} is damaged or not an OpenVINO graph.", "Convert the model again.")
    if not isinstance(model, OpenedModel):
        return [str(main)]
    return [str(main), *(str(weights.readable) for weights in model.beside.values())]


def _properties(options: RuntimeOptions) -> dict[str, Any]:
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if options.threads:
        properties["INFERENCE_NUM_THREADS"] = options.threads
    if options.lanes > 1:
        properties["NUM_STREAMS"] = min(options.lanes, options.threads or options.lanes)
    if options.cache_dir:
        properties["CACHE_DIR"] = options.cache_dir
    return properties


def _of_accelerator(
    core: Any, device: str, model: Path | OpenedModel, options: RuntimeOptions, version: str
) -> dict[str, Any]:
    if options.precision == "bf16":
        return _precision(core, device, options)
    able = () if device.startswith("AUTO") else core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    folder = cache_folder_of(core, device, model, options, version)
    return {**({"CACHE_DIR": folder} if folder else {}), **properties(device, options, able)}


def _precision(core: Any, device: str, options: RuntimeOptions) -> dict[str, Any]:
    """In which type the CPU computes float layers, and what the caller sets himself."""
    given = dict(options.extra.get("config", {}))
    if PRECISION_HINT in given:
        return given
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if options.precision == "bf16":
        if device != "CPU" or "BF16" not in able:
            raise DeviceError(
                f"{device} does not compute in bfloat16 (it has {', '.join(able)}).",
                "Leave bf16 out: float32 is what the bundle was checked with.",
            )
        return {PRECISION_HINT: "bf16", **given}
    return {PRECISION_HINT: "f16" if options.precision == "fp16" and "FP16" in able else "f32", **given}


def _float_precision(compiled: Any, device: str) -> str:
    try:
        name = compiled.get_property(PRECISION_HINT).get_type_name()
    except (RuntimeError, AttributeError):  # not every device has that property, and AUTO says it for each
        return _of_each(compiled, device)
    return _FLOATS.get(name, name)


def _of_each(compiled: Any, device: str) -> str:
    try:
        name = compiled.get_property("DEVICE_PROPERTIES")[device][PRECISION_HINT].get_type_name()
    except (RuntimeError, AttributeError, KeyError, TypeError):
        return ""
    return _FLOATS.get(name, name)


def _name(port: Any, otherwise: str) -> str:
    return min(port.get_names()) if port.get_names() else otherwise


def _spec(name: str, port: Any) -> TensorSpec:
    dtype = _DTYPES.get(port.get_element_type().get_type_name())
    if dtype is None:
        raise SessionError(f"A tensor has the type {port.get_element_type()}, which EdgeCV does not feed.")
    shape = tuple(size.get_length() if size.is_static else -1 for size in port.get_partial_shape())
    return TensorSpec(name=name, role="", shape=shape, dtype=dtype)


def _metadata(model: Any) -> Mapping[str, str]:
    """What converters left under ``model_info`` of the file's runtime info."""
    info = model.get_rt_info()
    if "model_info" not in info:
        return MappingProxyType({})
    return MappingProxyType({key: value.astype(str) for key, value in info["model_info"].items()})
