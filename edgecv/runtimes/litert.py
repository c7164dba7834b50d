"""LiteRT: the one module that opens TFLite files at run time, through ai-edge-litert or, on older boards, tflite-runtime."""

from __future__ import annotations

import importlib.util
import queue
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
from edgecv.runtimes.accelerators import edgetpu
from edgecv.runtimes.extra_options import check_extra
from edgecv.runtimes.feeds import check_feeds
from edgecv.runtimes.tflite_files import check_tflite
from edgecv.specs import RuntimeOptions, TensorSpec

_PACKAGES = ("ai_edge_litert", "tflite_runtime")


class LiteRtSession(RuntimeAdapter):
    """LiteRT interpreters on XNNPACK, one per lane; ``run`` may be called from several threads, so many at a time compute.

    Names of inputs and outputs are those of the file's signature. ``device`` is ``cpu``, or ``edgetpu`` for a file that was
    compiled for a Coral, which computes one image at a time; ``extra`` then takes ``config``, the options of ``libedgetpu``.
    """

    package: ClassVar[str] = next((name for name in _PACKAGES if importlib.util.find_spec(name)), _PACKAGES[0])
    extra: ClassVar[str] = "tflite"
    formats: ClassVar[tuple[str, ...]] = ("tflite",)
    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)
    distributions: ClassVar[tuple[str, ...]] = DISTRIBUTIONS["litert"]
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
            MissingDependency: neither ai-edge-litert nor tflite-runtime is installed.
            DeviceError: a device was asked for that is not there, or that the file is not for.
            SessionError: the file is damaged or not a model that this release can run.
        """
        if options.device not in ("cpu", *edgetpu.NAMES):
            known = ", ".join(("cpu", *edgetpu.NAMES))
            raise DeviceError(f"LiteRT has no device '{options.device}' here.", f"Known: {known}. Use device='cpu'.")
        check_extra(options.extra, "litert", ("config",) if options.device != "cpu" else ())
        runtime = require(f"{self.package}.interpreter", self.extra)
        path = path_of(model)
        utf8_name(readable_path(model), SessionError)
        check_tflite(readable_path(model), path.name)  # a damaged file may end the process
        edgetpu.check_fits(readable_path(model), path.name, options.device)
        on_coral = options.device != "cpu"
        delegates = [edgetpu.load_delegate(runtime, options.extra.get("config", {}))] if on_coral else []
        lanes = 1 if on_coral else options.lanes  # a Coral is opened by one interpreter
        with foreign_errors(
            SessionError, f"LiteRT cannot load {path.name}", "Convert the model again, or update ai-edge-litert."
        ):
            interpreters = [_interpreter(runtime, readable_path(model), options, delegates) for _ in range(lanes)]
            named_inputs, named_outputs = _named(interpreters[0])
            self.inputs = inputs or tuple(_spec(name, detail) for name, detail in named_inputs.items())
            self.outputs = outputs or tuple(_spec(name, detail) for name, detail in named_outputs.items())
        self._input_at = _indices(self.inputs, named_inputs, path)
        self._output_at = _indices(self.outputs, named_outputs, path)
        self.providers: tuple[str, ...] = ("edgetpu", "cpu") if on_coral else ("cpu",)
        self.float_precision = "float32"
        self.metadata: Mapping[str, str] = MappingProxyType({})
        self._lanes = lanes
        self._closing = threading.Lock()
        self._closed = False
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        for made in interpreters:
            self._free.put(made)

    def run(self, feeds: Tensors) -> dict[str, Array]:
        """Compute the outputs by name; see ``edgecv.protocols.Session``."""
        check_feeds(feeds, self.inputs)
        interpreter = None if self._closed else self._free.get()  # each comes back as soon as it has computed
        try:
            if interpreter is None:
                raise SessionError("The session is closed.", "Load the model again.")
            return self._compute(interpreter, feeds)
        finally:
            self._free.put(interpreter)

    def close(self) -> None:
        """See ``edgecv.protocols.Session``; waits for the images that are being computed."""
        with self._closing:
            self._closed = True
            while self._lanes:  # one call after the other: two would each hold an interpreter and wait for the other's
                self._free.get()
                self._lanes -= 1
            self._free.put(None)  # for those who wait for an interpreter

    def _compute(self, interpreter: Any, feeds: Tensors) -> dict[str, Array]:
        with foreign_errors(SessionError, "LiteRT failed", "Convert the model again."):
            for name, value in feeds.items():
                interpreter.set_tensor(self._input_at[name], value)
            interpreter.invoke()
        return {name: interpreter.get_tensor(at) for name, at in self._output_at.items()}


def _interpreter(runtime: Any, path: Path, options: RuntimeOptions, delegates: list[Any]) -> Any:
    # Without a thread count the interpreter takes one.
    interpreter = runtime.Interpreter(
        model_path=str(path), num_threads=options.lane_threads or None, experimental_delegates=delegates or None
    )
    interpreter.allocate_tensors()
    return interpreter


def _named(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensor details by signature name; by tensor name where a file has no signature."""
    if interpreter.get_signature_list():
        runner = interpreter.get_signature_runner()
        return dict(runner.get_input_details()), dict(runner.get_output_details())
    return (
        {detail["name"]: detail for detail in interpreter.get_input_details()},
        {detail["name"]: detail for detail in interpreter.get_output_details()},
    )


def _indices(specs: tuple[TensorSpec, ...], named: Mapping[str, Any], path: Path) -> dict[str, int]:
    missing = next((spec.name for spec in specs if spec.name not in named), None)
    if missing is not None:
        raise SessionError(
            f"{path.name} has no tensor '{missing}', only {', '.join(named)}.", "Convert the model again."
        )
    return {spec.name: int(named[spec.name]["index"]) for spec in specs}


def _spec(name: str, detail: Any) -> TensorSpec:
    scale, zero_point = detail["quantization"]
    return TensorSpec(
        name=name,
        role="",
        shape=tuple(int(size) for size in detail["shape"]),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale) or None,
        zero_point=int(zero_point) if scale else None,
    )
