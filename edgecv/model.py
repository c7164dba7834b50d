"""``load`` and ``Model``: a picture in, what is in it out."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecv import registry
from edgecv._internal.strict import check_number
from edgecv.bundles.bundle import Bundle, Variant
from edgecv.bundles.cpu_classes import suits_this_machine
from edgecv.bundles.ultralytics_metadata import spec_of
from edgecv.errors import ConfigError, MissingDependency, ModelError, SpecMismatch
from edgecv.promptable import PromptableModel
from edgecv.protocols import Array, Decoder, RuntimeAdapter, SaysPrecision, Session, Tensors
from edgecv.results import Classification, Detections, Image
from edgecv.runtimes.adapter import open_session
from edgecv.specs import DecodeSpec, ModelSpec, RuntimeOptions, TensorSpec
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.letterbox import prepare

_MOST_LANES = 8
MOST_THREADS = 1024


class Model:
    """A loaded model; call it with a picture. May be used from several threads.

    Attributes:
        name: Name of the bundle and variant, such as ``yolov8n/onnx-int8``.
        spec: How pictures go in and results come out.
        session: The runtime session; ``session.run(feeds)`` gives the raw outputs.
        bundle: The bundle it came from; ``None`` for a bare model file.
        variant: The variant that was chosen; ``None`` for a bare model file.
        batch: Pictures per run of the session; ``many`` fills them, a call with one picture leaves the others black.
    """

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        session: Session,
        bundle: Bundle | None = None,
        variant: Variant | None = None,
    ) -> None:
        self.name = name
        self.spec = spec
        self.session = session
        self.bundle = bundle
        self.variant = variant
        self._image = _image_input(session.inputs)
        self.batch = max(1, self._image.shape[0])
        outputs = _of_one_picture(session.outputs, self.batch)
        self._decoder: Decoder = registry.resolve("decoders", spec.decode.decoder)(spec.decode, outputs)

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.spec.decode.labels

    @property
    def task(self) -> str:
        """What the model does: ``detect``, ``classify`` ..."""
        return self.spec.decode.task

    def __call__(
        self,
        image: Image,
        *,
        confidence: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        multi_label: bool = False,
    ) -> Detections | Classification:
        """Find what is in one picture.

        Args:
            image: ``(H, W, 3)`` uint8, BGR.
            confidence: Lowest confidence kept, 0 to 1; the bundle's own by default.
            iou: Boxes of one class that overlap more than this are one object; the bundle's own by default.
            max_detections: At most this many boxes; the bundle's own by default.
            multi_label: Keep every class of a box that passes, not its best alone.

        Raises:
            SpecMismatch: ``image`` is not ``(H, W, 3)`` uint8.
            ConfigError: a limit is out of its range.
            SessionError: the runtime failed.
        """
        feeds, transform = self.prepare(image)
        return self.decode(
            self.infer(feeds),
            transform,
            confidence=confidence,
            iou=iou,
            max_detections=max_detections,
            multi_label=multi_label,
        )

    def many(
        self,
        images: Iterable[Image],
        *,
        confidence: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        multi_label: bool = False,
    ) -> list[Detections | Classification]:
        """Find what is in each of any number of pictures, ``batch`` of them per run.

        Args:
            images: ``(H, W, 3)`` uint8, BGR each; their sizes may differ. They are taken one at a time: those of a
                generator that reads files are never in memory together.
            confidence: As in ``__call__``, like the limits that follow.
            iou: See there.
            max_detections: See there.
            multi_label: See there.

        Returns:
            A result per picture, in their order: what a call with that picture alone gives.

        Raises:
            SpecMismatch: an image is not ``(H, W, 3)`` uint8.
            ConfigError: a limit is out of its range.
            SessionError: the runtime failed.
        """
        found: list[Detections | Classification] = []
        waiting = iter(images)
        while True:
            feeds, transforms = self._prepare_rows(itertools.islice(waiting, self.batch))
            if not transforms:
                return found
            outputs = self.infer(feeds)
            found += [
                self.decode(
                    outputs,
                    transform,
                    row=row,
                    confidence=confidence,
                    iou=iou,
                    max_detections=max_detections,
                    multi_label=multi_label,
                )
                for row, transform in enumerate(transforms)
            ]

    def prepare(self, image: Image) -> tuple[dict[str, Array], ImageTransform]:
        """The session's feeds for one picture, in the first row of a batch, and the transform to bring boxes back."""
        feeds, (transform,) = self._prepare_rows([image])
        return feeds, transform

    def _prepare_rows(self, images: Iterable[Image]) -> tuple[dict[str, Array], list[ImageTransform]]:
        prepared = [prepare(image, self.spec.preprocess, self._image) for image in images]
        transforms = [transform for _, transform in prepared]
        if not prepared:
            return {}, []
        if self.batch == 1:
            return {self._image.name: prepared[0][0]}, transforms
        first = prepared[0][0]
        rows = np.zeros((self.batch, *first.shape[1:]), first.dtype)
        for row, (tensor, _) in enumerate(prepared):
            rows[row] = tensor[0]
        return {self._image.name: rows}, transforms

    def infer(self, feeds: Tensors) -> dict[str, Array]:
        """Raw outputs by name."""
        return self.session.run(feeds)

    def decode(
        self,
        outputs: Tensors,
        transform: ImageTransform,
        *,
        row: int = 0,
        confidence: float | None = None,
        iou: float | None = None,
        max_detections: int | None = None,
        multi_label: bool = False,
    ) -> Detections | Classification:
        """Raw outputs to the result of the picture in ``row``, in frame pixels; limits as in ``__call__``."""
        spec = _with_limits(self.spec.decode, confidence, iou, max_detections)
        if self.batch > 1:
            outputs = {name: value[row : row + 1] for name, value in outputs.items()}
        return self._decoder(outputs, transform, spec, multi_label)

    def close(self) -> None:
        """Free the session; a second call does nothing."""
        self.session.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(
    path: str | Path,
    runtime: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    *,
    device: str = "cpu",
    spec: ModelSpec | None = None,
    variant: str = "",
    lanes: int = 1,
    cache_dir: str | Path = "",
    extra: Mapping[str, Any] | None = None,
) -> Any:
    """Load a bundle, or a bare model file: a ``Model``, or a ``PromptableModel`` from a bundle of SAM.

    Args:
        path: ``NAME.ecv`` folder, or a ``.onnx``, ``.xml`` or ``.tflite`` file.
        runtime: ``auto`` or the name of a runtime (``edgecv plugins`` lists them).
        precision: ``auto``, ``fp32``, ``fp16`` or ``int8``. Of the variants that fit, the one that ran fastest when it was
            converted; one built for another CPU class only where nothing else fits. ``bf16``: the float32 variant, or the one
            that ``variant`` names, with its float layers in bfloat16; OpenVINO does that on CPUs that can, and never unasked.
        threads: Threads of the session, at most 1024; 0 lets the runtime choose.
        device: ``cpu``, ``cuda`` ...: never replaced by another one.
        spec: How to use a bare model file that carries no metadata.
        variant: Name of a bundle's variant, such as ``onnx-int8-arm64``: that one, whatever it was built for.
        lanes: Pictures computed at the same time (``RuntimeOptions``): 2 for files and several cameras, 1 for the quickest
            answer to one picture.
        cache_dir: Folder where a runtime that compiles models (OpenVINO) keeps what it compiled: the next start is quicker.
        extra: Options of one runtime (see its module).

    Raises:
        BundleError: the bundle is damaged.
        ConfigError: the bundle has no such variant, or an option is out of range.
        SpecMismatch: a bare file says nothing about itself and ``spec`` is missing or does not fit.
        MissingDependency: the runtime is not installed.
        SessionError: the runtime cannot load the file.
    """
    path = Path(path)
    options = runtime_options(
        runtime=runtime,
        precision=precision,
        threads=threads,
        device=device,
        variant=variant,
        lanes=lanes,
        cache_dir=str(cache_dir),
        extra=extra or {},
    )
    if not path.exists():
        raise ModelError(f"{path} does not exist.", "Make a bundle with: edgecv convert MODEL --int8 --calib IMAGES")
    if path.is_file() and path.suffix in _suffixes():
        return _load_file(path, options, spec)
    if spec is not None:
        raise ConfigError("spec= is for bare model files; a bundle has its own.")
    return _load_bundle(Bundle.open(path), options)


def open_variant(bundle: Bundle, variant: Variant, options: RuntimeOptions, runtime: str) -> Model:
    """Load one variant of a bundle on one runtime.

    Raises:
        ConfigError: the model answers prompts; ``open_promptable`` is for those.
        BundleError: a file of the variant is missing or changed.
        SessionError: the runtime cannot load it.
    """
    if "main" not in variant.models:
        raise ConfigError(f"{bundle.name} answers prompts.", "Use set_image and predict of edgecv.load(...).")
    session = _open_part(bundle, variant, "main", _of_variant(options, variant), runtime)
    return Model(f"{bundle.name}/{variant.name}", bundle.spec, session, bundle, variant)


def open_promptable(bundle: Bundle, variant: Variant, options: RuntimeOptions, runtime: str) -> PromptableModel:
    """Load one variant of a bundle of SAM on one runtime; raises as ``open_variant``."""
    options = _of_variant(options, variant)
    sessions = {part: _open_part(bundle, variant, part, options, runtime) for part in variant.models}
    return PromptableModel(f"{bundle.name}/{variant.name}", bundle.spec, sessions, bundle, variant)


def _of_variant(options: RuntimeOptions, variant: Variant) -> RuntimeOptions:
    """The options with the variant's own precision, which ``auto`` leaves open."""
    precision = "bf16" if options.precision == "bf16" else variant.precision
    return msgspec.structs.replace(options, precision=precision)


def float_precision(session: Session) -> str:
    """In which type a session computes what is not in integers, such as ``float32``; empty where it does not say."""
    return session.float_precision if isinstance(session, SaysPrecision) else ""


def _open_part(bundle: Bundle, variant: Variant, part: str, options: RuntimeOptions, runtime: str) -> Session:
    files = variant.models[part]
    with bundle.opened_model(variant, part) as model:
        return open_session(runtime, model, options, files.inputs, files.outputs)


def runnable(bundle: Bundle, options: RuntimeOptions) -> list[tuple[Variant, str]]:
    """Every variant that fits the options, each with an installed runtime to run it on.

    Raises:
        ConfigError: no variant has that runtime and precision.
        MissingDependency: one has, but its runtime is not installed.
    """
    pairs = [
        (variant, name)
        for variant in bundle.variants
        for name in runtimes_for(variant.format)
        if options.runtime in ("auto", name)
        and _has_precision(variant, name, options)
        and options.variant in ("", variant.name)
    ]
    if not pairs and options.precision == "bf16":
        raise ConfigError(
            f"Nothing computes {options.variant or bundle.path} in bfloat16 on the runtime {options.runtime}.",
            "OpenVINO does: convert with --to openvino, or leave bf16 out.",
        )
    if not pairs:
        raise ConfigError(
            f"{bundle.path} has no {options.variant or options.precision} variant for the runtime {options.runtime}.",
            f"It has: {', '.join(variant.name for variant in bundle.variants)}.",
        )
    installed = [pair for pair in pairs if _installed(pair[1])]
    if not installed:
        missing = sorted({name for _, name in pairs})
        raise MissingDependency(
            f"No runtime for {bundle.path} is installed ({', '.join(missing)}).",
            f"Install one with: pip install 'edgecv[{_runtime(missing[0]).extra}]'",
        )
    return installed


def _has_precision(variant: Variant, runtime: str, options: RuntimeOptions) -> bool:
    if options.precision == "bf16":
        return _runtime(runtime).takes_bf16 and (variant.precision == "fp32" or options.variant == variant.name)
    return options.precision in ("auto", variant.precision)


def _load_bundle(bundle: Bundle, options: RuntimeOptions) -> Model | PromptableModel:
    variant, runtime = min(runnable(bundle, options), key=_preference)
    opener = open_promptable if bundle.manifest.decode.task == "promptable-segment" else open_variant
    return opener(bundle, variant, options, runtime)


def _preference(pair: tuple[Variant, str]) -> tuple[bool, bool, float]:
    """Order of variants, the best first.

    What is built for another CPU class comes last: its kernels are slow here, or saturate. What is built for this one on a
    machine that could not time it comes first: nothing else has its kernels. Then the fastest.
    """
    variant, _ = pair
    return not suits_this_machine(variant.cpu_class), variant.timed, variant.latency_ms


def _load_file(path: Path, options: RuntimeOptions, spec: ModelSpec | None) -> Model:
    fitting = [name for name in registry.names("runtimes") if path.suffix in _runtime(name).suffixes]
    chosen = next((name for name in fitting if options.runtime in ("auto", name)), None)
    if chosen is None:
        raise ConfigError(f"{options.runtime} does not run {path.suffix} files.", f"Use: {', '.join(fitting)}.")
    if options.precision == "bf16" and not _runtime(chosen).takes_bf16:
        raise ConfigError(f"{chosen} does not compute {path.name} in bfloat16.", "OpenVINO does, from an .xml file.")
    session = open_session(chosen, path, options)
    return Model(path.stem, spec or spec_of(path, session), session)


def _image_input(inputs: tuple[TensorSpec, ...]) -> TensorSpec:
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise SpecMismatch(f"Expected one image input of four axes, not {[spec.shape for spec in inputs]}.")
    spec = inputs[0]
    if spec.layout:
        return spec
    return msgspec.structs.replace(spec, layout="NHWC" if spec.shape[3] == 3 else "NCHW")


def _of_one_picture(outputs: tuple[TensorSpec, ...], batch: int) -> tuple[TensorSpec, ...]:
    """What a decoder gets: the outputs of one row."""
    if batch == 1:
        return outputs
    if any(spec.shape[:1] not in ((batch,), (-1,)) for spec in outputs):
        raise SpecMismatch(f"{batch} pictures go in, but {[spec.shape for spec in outputs]} comes out.")
    return tuple(msgspec.structs.replace(spec, shape=(1, *spec.shape[1:])) for spec in outputs)


def _with_limits(
    spec: DecodeSpec, confidence: float | None, iou: float | None, max_detections: int | None
) -> DecodeSpec:
    given = {"confidence": confidence, "iou": iou, "max_detections": max_detections}
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return spec
    for name, value in changes.items():
        if name == "max_detections":
            check_number(name, value, 1, whole=True)
        else:
            check_number(name, value, 0, 1, hint="Leave it out for the model's own.")
    return msgspec.structs.replace(spec, **changes)


def runtime_options(**given: Any) -> RuntimeOptions:
    """Checked options; fields as in ``RuntimeOptions``.

    Raises:
        ConfigError: a value is out of its range.
        UnknownPlugin: no runtime has that name.
    """
    try:
        options = msgspec.convert(given, RuntimeOptions)
    except msgspec.ValidationError as error:
        hint = "precision: auto, fp32, fp16, int8 or bf16." if "$.precision" in str(error) else ""
        raise ConfigError(f"A runtime option is wrong: {error}.", hint) from error
    check_number("lanes", options.lanes, 1, _MOST_LANES, whole=True, hint="2 for files and many cameras.")
    check_number("threads", options.threads, 0, MOST_THREADS, whole=True, hint="0: the runtime chooses.")
    if options.runtime != "auto":
        registry.place("runtimes", options.runtime)  # names the known ones when it is misspelt
    return options


def _runtime(name: str) -> type[RuntimeAdapter]:
    return registry.resolve("runtimes", name)


def runtimes_for(model_format: str) -> list[str]:
    """Names of the runtimes that run a format, installed or not."""
    return [name for name in registry.names("runtimes") if model_format in _runtime(name).formats]


def _suffixes() -> set[str]:
    return {suffix for name in registry.names("runtimes") for suffix in _runtime(name).suffixes}


def _installed(runtime: str) -> bool:
    return importlib.util.find_spec(_runtime(runtime).package) is not None
