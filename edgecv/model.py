"""``load`` and ``Model``: an image in, what is in it out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecv import registry
from edgecv._internal.timing import StageTimer
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.checked_sessions import open_checked
from edgecv.bundles.manifest import Variant
from edgecv.bundles.ultralytics_metadata import spec_of
from edgecv.choosing import (
    LoadOptions,
    check_exists,
    choose,
    choose_for_file,
    file_suffixes,
    runtime_options,
)
from edgecv.errors import ConfigError
from edgecv.limits import Asked, Limits
from edgecv.promptable import open_promptable
from edgecv.protocols import Array, Decoder, Session, Tensors
from edgecv.results import Classification, Detections, Frame, Image, Result
from edgecv.runtimes.adapter import open_session
from edgecv.specs import ModelSpec, RuntimeOptions
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.input_shapes import check_frame_size
from edgecv.vision.letterbox import prepare
from edgecv.vision.tensors import image_input, of_one_image

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _LoadOptions(LoadOptions, total=False):
    spec: ModelSpec | None
    fit: tuple[int, int] | None


class Model:
    """A loaded model; call it with an image. May be used from several threads.

    Attributes:
        name: Name of the bundle and variant, such as ``yolov8n/onnx-int8``.
        spec: How images go in and results come out.
        session: The runtime session; ``session.run(feeds)`` gives the raw outputs.
        bundle: The bundle it came from; ``None`` for a bare model file.
        variant: The variant that was chosen; ``None`` for a bare model file.
        batch: Images per run of the session; ``many`` fills them, a call with one image leaves the others black.
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
        self._image = image_input(session.inputs)
        self.batch = max(1, self._image.shape[0])
        outputs = of_one_image(session.outputs, self.batch)
        self._decoder: Decoder = registry.resolve("decoders", spec.decode.decoder)(spec.decode, outputs)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, in the order of the class ids."""
        return self.spec.decode.labels

    @property
    def task(self) -> str:
        """What the model does: ``detect``, ``classify`` ..."""
        return self.spec.decode.task

    @classmethod
    def load(cls, path: str | Path, **options: Unpack[_LoadOptions]) -> Model:
        """Load a bundle or a bare model file as ``edgecv.load`` does, with the same options; the result is always a ``Model``.

        Raises:
            ConfigError: the model answers prompts; ``PromptableModel.load`` is for those.
        """
        model = load(path, **options)
        if isinstance(model, Model):
            return model
        model.close()
        raise ConfigError(f"{model.name} answers prompts.", f"Load it with edgecv.PromptableModel.load({str(path)!r}).")

    def __call__(self, image: Image, **limits: Unpack[Limits]) -> Detections | Classification:
        """Find what is in one image.

        Args:
            image: ``(H, W, 3)`` uint8, BGR, as ``edgecv.read_image`` gives it.
            limits: ``confidence``, ``iou``, ``max_detections``, ``multi_label`` and ``classes``; see ``Limits``.

        Raises:
            SpecMismatch: ``image`` is not ``(H, W, 3)`` uint8.
            ConfigError: a limit is out of its range, or the model has no such class; the hint lists those it has.
            SessionError: the runtime failed.
        """
        feeds, transform = self.prepare(image)
        return self.decode(self.infer(feeds), transform, **limits)

    def look(self, image: Image, **limits: Unpack[Limits]) -> Result:
        """Find what is in one image, as a call does, and give a ``Result``: with ``names``, ``as_dict()`` and ``plot()``.

        Args:
            image: As in a call.
            limits: As in a call.

        Raises:
            EdgeCVError: as a call does.
        """
        frame, timer = Frame(image=image), StageTimer()
        with timer.stage("preprocess"):
            feeds, transform = self.prepare(image)
        with timer.stage("inference"):
            outputs = self.infer(feeds)
        with timer.stage("postprocess"):
            found = self.decode(outputs, transform, **limits)
        return Result(
            frame=frame,
            labels=self.labels,
            detections=found if isinstance(found, Detections) else None,
            classification=found if isinstance(found, Classification) else None,
            timings_ms=timer.as_ms(),
            age_ms=(time.monotonic_ns() - frame.monotonic_ns) / 1e6,
            model=self.name,
        )

    def many(self, images: Iterable[Image], **limits: Unpack[Limits]) -> list[Detections | Classification]:
        """Find what is in each of any number of images, ``batch`` of them per run.

        Args:
            images: ``(H, W, 3)`` uint8, BGR each; their sizes may differ. They are taken one at a time: those of a
                generator that reads files are never in memory together.
            limits: As in a call.

        Returns:
            A result per image, in their order: what a call with that image alone gives.

        Raises:
            EdgeCVError: as a call does.
        """
        found: list[Detections | Classification] = []
        waiting = iter(images)
        while True:
            feeds, transforms = self._prepare_rows(itertools.islice(waiting, self.batch))
            if not transforms:
                return found
            outputs = self.infer(feeds)
            found += [self.decode(outputs, transform, row, **limits) for row, transform in enumerate(transforms)]

    def prepare(self, image: Image) -> tuple[dict[str, Array], ImageTransform]:
        """The session's feeds for one image, in the first row of a batch, and the transform to bring boxes back."""
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
        """Run the network and return its raw outputs by name."""
        return self.session.run(feeds)

    def decode(
        self, outputs: Tensors, transform: ImageTransform, row: int = 0, **limits: Unpack[Limits]
    ) -> Detections | Classification:
        """Raw outputs to the result of the image in ``row`` of a batch, in its own pixels; limits as in a call."""
        asked = Asked.of(self.spec.decode, **limits)
        if self.batch > 1:
            outputs = {name: value[row : row + 1] for name, value in outputs.items()}
        found = self._decoder(outputs, transform, asked.spec, asked.multi_label)
        return asked.chosen(replace(found, labels=self.labels))

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
    fit: tuple[int, int] | None = None,
) -> Model | Any:
    """Load a bundle, or a bare model file: a ``Model``, or a ``PromptableModel`` from a bundle of SAM.

    Which of the two it is stands in the bundle. Where a type checker shall know, call ``Model.load`` or ``PromptableModel.load``.

    Args:
        path: ``NAME.ecv`` folder, or a ``.onnx``, ``.xml`` or ``.tflite`` file.
        runtime: ``auto`` or the name of a runtime (``edgecv plugins`` lists them).
        precision: ``auto``, ``fp32``, ``fp16`` or ``int8``. Of the variants that fit, the one that was the fastest when
            ``edgecv tune`` measured this bundle on this device; where it did not, the first in the order for this kind of
            device. One built for another CPU class is taken only where nothing else fits. ``bf16``: the float32 variant, or
            the one that ``variant`` names, with its float layers in bfloat16; OpenVINO does that on CPUs that can, and never
            unasked.
        threads: Threads of the session, at most 1024; 0: as many as ``edgecv tune`` found best for this bundle, else
            as many as this process may use CPUs, by its binding and its quota.
        device: ``cpu``, ``cuda``, ``tensorrt``, ``gpu``, ``npu``, ``auto`` or ``edgetpu``; never replaced by another one.
        spec: How to use a bare model file that carries no metadata.
        variant: Name of a bundle's variant, such as ``onnx-int8-arm64``: that one, whatever it was built for.
        lanes: Images computed at the same time (``RuntimeOptions``): 2 for files and several cameras, 1 for the quickest
            answer to one image.
        cache_dir: Folder where a runtime keeps what it compiled: the next start is quicker (see ``RuntimeOptions``).
        extra: Options of one runtime (see its module).
        fit: Width and height of the images. Of a bundle with several input shapes (``edgecv convert --fit``), the one that wastes
            least on them is loaded; without it, the model's own. The model takes images of any size all the same.

    Raises:
        BundleError: the bundle is damaged.
        ConfigError: the bundle has no such variant, or an option is out of range or fits no other one.
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
        cache_dir=cache_dir,
        extra=extra or {},
    )
    fit = None if fit is None else check_frame_size(fit)
    if fit is not None and variant:
        raise ConfigError(
            f"The variant {variant} has one input shape, so fit= chooses nothing.", "Leave one of them out."
        )
    check_exists(path)
    if path.is_file() and path.suffix in file_suffixes():
        if fit is not None:
            raise ConfigError("fit= is for bundles; a bare model file has one input shape.", "Leave fit= out.")
        session = open_session(choose_for_file(path, options), path, options)
        return Model(path.stem, spec or spec_of(path, session), session)
    if spec is not None:
        raise ConfigError("spec= is for bare model files; a bundle has its own.")
    chosen = choose(path, options, fit)
    opener = open_promptable if chosen.bundle.manifest.decode.task == "promptable-segment" else open_variant
    return opener(chosen.bundle, chosen.variant, chosen.options, chosen.runtime)


def open_variant(bundle: Bundle, variant: Variant, options: RuntimeOptions, runtime: str) -> Model:
    """Load one variant of a bundle on one runtime.

    Raises:
        ConfigError: the model answers prompts; ``open_promptable`` is for those.
        BundleError: a file of the variant is missing or changed.
        SessionError: the runtime cannot load it.
    """
    if "main" not in variant.models:
        raise ConfigError(f"{bundle.name} answers prompts.", "Use set_image and predict of edgecv.load(...).")
    sessions = open_checked(bundle, variant, options, runtime)
    return Model(f"{bundle.name}/{variant.name}", bundle.spec_of(variant), sessions["main"], bundle, variant)
