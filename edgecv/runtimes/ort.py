"""ONNX Runtime: the one module that opens ``onnxruntime`` sessions at run time."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from edgecv._internal.extras import require
from edgecv._internal.foreign import foreign_errors
from edgecv.bundles.cpu_classes import saturates_int8
from edgecv.bundles.opened_files import OpenedModel, path_of
from edgecv.errors import EdgeCVError, SessionError
from edgecv.media.image_files import utf8_name
from edgecv.protocols import Array, RuntimeAdapter, Tensors
from edgecv.runtimes import DISTRIBUTIONS
from edgecv.runtimes.accelerators.ort_device import OrtDevice, Providers
from edgecv.runtimes.accelerators.providers import RECORD_PLACEMENT
from edgecv.runtimes.extra_options import check_extra
from edgecv.runtimes.feeds import check_feeds
from edgecv.runtimes.onnx_files import check_external
from edgecv.specs import RuntimeOptions, TensorSpec

_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "tensor(float)": "float32",
        "tensor(float16)": "float16",
        "tensor(double)": "float64",
        "tensor(uint8)": "uint8",
        "tensor(int8)": "int8",
        "tensor(int32)": "int32",
        "tensor(int64)": "int64",
        "tensor(bool)": "bool",
    }
)
_FATAL_ONLY = 4  # onnxruntime's log level: errors come as exceptions, its own lines would only repeat them


class OnnxRuntimeSession(RuntimeAdapter):
    """A session of ONNX Runtime; ``run`` may be called from several threads.

    Options: ``device`` is ``cpu``, ``cuda`` or ``tensorrt``; ``extra`` takes ``spinning`` (default false: spinning worker
    threads take the core from capture and decoding on small devices), ``config``, a mapping of session config entries,
    ``provider_options``, options by provider, such as ``{"CUDAExecutionProvider": {"device_id": 1}}``, and ``build_engine``, which
    lets TensorRT take minutes where it has no engine. ``cache_dir`` is where engines of TensorRT are kept.

    Attributes:
        placement: The share of nodes that each provider computes; empty on the CPU, and where onnxruntime does not tell.
        from_cache: Whether it runs an engine that was built earlier.
    """

    package: ClassVar[str] = "onnxruntime"
    extra: ClassVar[str] = "onnx"
    formats: ClassVar[tuple[str, ...]] = ("onnx",)
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    distributions: ClassVar[tuple[str, ...]] = DISTRIBUTIONS["onnxruntime"]
    takes_opened_files: ClassVar[bool] = True

    def __init__(
        self,
        model: Path | OpenedModel,
        options: RuntimeOptions,
        inputs: tuple[TensorSpec, ...] = (),
        outputs: tuple[TensorSpec, ...] = (),
    ) -> None:
        """Load ``model``; without ``inputs`` and ``outputs`` the specs are what the file says, with empty roles.

        Raises:
            MissingDependency: onnxruntime is not installed.
            ConfigError: ``extra`` is wrong.
            DeviceError: the device asked for is not there or not used, or TensorRT has no engine yet; another one is never
                taken instead.
            SessionError: the file is damaged, not a model that this release can run, or refers to files outside its folder.
        """
        path = path_of(model)
        check_extra(options.extra, self.package, ("build_engine", "config", "provider_options", "spinning"))
        runtime = require(self.package, self.extra)
        runtime.disable_telemetry_events()  # for an app that imported it before EdgeCV: it sends less then
        device = OrtDevice.of(runtime, options)
        opened = utf8_name(_openable(model, options.device), SessionError)

        def create(providers: Providers) -> Any:
            made = _session_options(runtime, options)
            signed = "session.qdqisint8allowed" in options.extra.get("config", {})  # a model for arm64, judged here
            if saturates_int8() and not signed and _quantizes(Path(opened)):
                # Two products of int8 would overflow 16 bits: YOLOv8n lost a tenth of its objects. ONNX Runtime computes them
                # exactly with this, a third slower. Models with int8 weights alone do not run with it.
                made.add_session_config_entry("session.x64quantprecision", "1")
            # Without its fallback: that prints what it failed on to stdout, and goes on with other devices.
            return runtime.InferenceSession(opened, made, providers=providers, enable_fallback=0)

        try:
            session = device.open(model, options, create)
        except EdgeCVError:
            raise
        except Exception as error:
            raise SessionError(
                f"onnxruntime cannot load {path.name}: {error}", "Convert the model again, or update onnxruntime."
            ) from error
        self.placement = device.check_used(session)
        self.from_cache = device.keeps_compiled
        self._session: Any = session
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        self.float_precision = _float_precision(options)
        try:
            self.inputs = inputs or tuple(_spec(node) for node in session.get_inputs())
            self.outputs = outputs or tuple(_spec(node) for node in session.get_outputs())
            self.metadata: Mapping[str, str] = MappingProxyType(session.get_modelmeta().custom_metadata_map)
        except (ValueError, RuntimeError) as error:  # a name that is no UTF-8 is a ValueError
            raise SessionError(f"{path.name} is damaged: {error}.", "Convert the model again.") from error
        self._output_names = [output.name for output in self.outputs]

    def run(self, feeds: Tensors) -> dict[str, Array]:
        """Compute the outputs by name; see ``edgecv.protocols.Session``."""
        session = self._session  # another thread may close this one meanwhile
        if session is None:
            raise SessionError("The session is closed.", "Load the model again.")
        check_feeds(feeds, self.inputs)
        with foreign_errors(SessionError, "onnxruntime failed", "Convert the model again."):
            values = session.run(self._output_names, dict(feeds))
        return dict(zip(self._output_names, values, strict=True))

    def close(self) -> None:
        """Release the model; a second call does nothing."""
        self._session = None


def _float_precision(options: RuntimeOptions) -> str:
    """The type of float layers. On graphics cards matrix products may run in TF32: float32 with 10 bits of fraction."""
    if options.device == "tensorrt" and options.precision in ("fp16", "int8"):
        return "float16 or float32"
    return "float32" if options.device == "cpu" else "float32 or tf32"


def _openable(model: Path | OpenedModel, device: str) -> Path:
    """By which name onnxruntime opens the model: it looks for external data beside that name.

    TensorRT calls its engine by the name of the file, so that of a descriptor would have it built anew at each start
    (onnxruntime, ``TRTGenerateId``). Whoever opened the files checks afterwards that nobody changed them.
    """
    if not isinstance(model, OpenedModel):
        check_external(model)
        return model
    return model.path if model.beside or device == "tensorrt" else model.main.readable


def _quantizes(path: Path) -> bool:
    """Whether a model quantizes what it computes: the operator's name, as protobuf writes it, stands in the file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b"\x0eQuantizeLinear") >= 0


def _session_options(runtime: Any, options: RuntimeOptions) -> Any:
    made = runtime.SessionOptions()
    made.log_severity_level = _FATAL_ONLY
    made.intra_op_num_threads = options.lane_threads
    made.inter_op_num_threads = 1
    # Memory planned ahead as one block is not shared as well as the arena shares it, and no faster (measured): SAM ViT-B's
    # encoder peaks at 3.8 GB instead of 7.1, YOLOv8n in fp32 at 115 MB instead of 139.
    made.enable_mem_pattern = False
    spinning = "1" if options.extra.get("spinning", False) else "0"
    made.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    for key, value in options.extra.get("config", {}).items():
        made.add_session_config_entry(str(key), str(value))
    if options.device != "cpu":  # last: nobody can turn off what tells where a model is computed
        made.add_session_config_entry(RECORD_PLACEMENT, "1")
    return made


def _spec(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    dtype = _DTYPES.get(node.type)
    if dtype is None:
        raise SessionError(f"Tensor '{node.name}' has the type {node.type}, which EdgeCV does not feed.")
    return TensorSpec(name=node.name, role="", shape=shape, dtype=np.dtype(dtype).name)
