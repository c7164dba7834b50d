"""``PromptableModel``: show it an image once, then ask for objects by points or boxes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from edgecv._internal.extras import opencv
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.checked_sessions import open_checked
from edgecv.bundles.manifest import Variant
from edgecv.choosing import LoadOptions, choose, runtime_options
from edgecv.errors import ConfigError, SpecMismatch
from edgecv.protocols import Array, Session
from edgecv.results import BoolArray, FloatArray, Image, Masks
from edgecv.specs import ModelSpec, RuntimeOptions
from edgecv.vision.geometry import ImageTransform
from edgecv.vision.letterbox import fit
from edgecv.vision.sam import INSIDE, OUTSIDE, box_prompt, content_wh, point_prompt

if TYPE_CHECKING:
    from typing_extensions import Unpack

MAX_BOXES = 100  # per call; each is a run of the decoder
_PROMPT = ("point_coords", "point_labels", "mask_input", "has_mask_input")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shown:
    """The image that ``predict`` asks about."""

    features: Mapping[str, Array]  # by role
    transform: ImageTransform


class PromptableModel:
    """A loaded SAM. May be used from several threads: ``predict`` asks about the image that was set last.

    Attributes:
        name: Name of the bundle and variant, such as ``mobile_sam/onnx-int8``.
        spec: How images go in.
        sessions: ``encoder`` and ``decoder``.
        bundle: The bundle it came from.
        variant: The variant that was chosen.
        max_points: Most points of one object.
    """

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        sessions: Mapping[str, Session],
        bundle: Bundle | None = None,
        variant: Variant | None = None,
    ) -> None:
        missing = {"encoder", "decoder"} - set(sessions)
        if missing:
            raise SpecMismatch(f"{name} lacks its {' and '.join(sorted(missing))}.", "Convert the model again.")
        self.name, self.spec, self.sessions = name, spec, sessions
        self.bundle, self.variant = bundle, variant
        self._inputs = {tensor.role: tensor for tensor in sessions["decoder"].inputs}
        self._outputs = {tensor.role: tensor.name for tensor in sessions["decoder"].outputs}
        features = {tensor.role for tensor in sessions["encoder"].outputs}
        whole = "image_embeddings" in features and {"low_res_masks", "iou_predictions"} <= set(self._outputs)
        if not whole or set(self._inputs) != {*_PROMPT, *features}:
            raise SpecMismatch(f"{name}: encoder and decoder do not fit together.", "Convert the model again.")
        self._slots = self._inputs["point_coords"].shape[1]
        self.max_points = self._slots - 1  # the last one marks the end of the points
        self._shown: _Shown | None = None
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: str | Path, **options: Unpack[LoadOptions]) -> PromptableModel:
        """Load a bundle of SAM; options and errors as of ``edgecv.load``.

        Raises:
            ConfigError: the model takes no prompts; ``Model.load`` is for those.
        """
        chosen = choose(Path(path), runtime_options(**options))
        return open_promptable(chosen.bundle, chosen.variant, chosen.options, chosen.runtime)

    @property
    def task(self) -> str:
        """The task of the model, which is always ``promptable-segment``."""
        return self.spec.decode.task

    @property
    def embeddings(self) -> Array:
        """``(1, 256, S/16, S/16)`` float32 embeddings of the image that was set.

        Raises:
            ConfigError: none was.
        """
        return self._current().features["image_embeddings"]

    def __call__(self, *_: object, **__: object) -> NoReturn:
        """Refuse: this model answers prompts.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self.name} answers prompts.", "Call set_image(image), then predict(points=...).")

    def set_image(self, image: Image) -> None:
        """Encode a ``(H, W, 3)`` uint8 BGR image; ``predict`` then asks about it.

        Raises:
            SpecMismatch: ``image`` is not ``(H, W, 3)`` uint8.
            SessionError: the runtime failed.
        """
        fitted, transform = fit(image, self.spec.preprocess)
        encoder = self.sessions["encoder"]
        found = encoder.run({encoder.inputs[0].name: fitted[None]})
        features = {tensor.role: found[tensor.name] for tensor in encoder.outputs}
        with self._lock:
            self._shown = _Shown(features=features, transform=transform)

    def predict(
        self,
        points: Sequence[Sequence[float]] | Array | None = None,
        labels: Sequence[int] | Array | None = None,
        boxes: Sequence[Sequence[float]] | Array | None = None,
        *,
        multimask: bool = False,
        low_res: bool = False,
    ) -> Masks:
        """Objects of the image that was set.

        Args:
            points: ``(K, 2)`` frame pixels, all of one object.
            labels: ``(K,)``: 1 for a point in the object, 0 for one outside; all 1 by default.
            boxes: ``(N, 4)`` frame pixels: left, top, right, bottom; one object each.
            multimask: Three candidates for each object, not the one that the model thinks best.
            low_res: Keep the logits as well.

        Raises:
            ConfigError: no image was set, or the prompts contradict each other or are too many.
            SpecMismatch: points or boxes of another shape.
            SessionError: the runtime failed.
        """
        shown = self._current()
        prompts = self._prompts(shown.transform, points, labels, boxes)
        found = [self._decode(shown, coords, kinds, multimask) for coords, kinds in prompts]
        logits = np.concatenate([logits for logits, _ in found])
        iou = np.concatenate([iou for _, iou in found])
        return _masks(logits, iou, shown.transform, self.spec.preprocess.size_wh, low_res)

    def close(self) -> None:
        """Free the sessions; a second call does nothing."""
        for session in self.sessions.values():
            session.close()

    def __enter__(self) -> PromptableModel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _current(self) -> _Shown:
        with self._lock:
            if self._shown is None:
                raise ConfigError("No image was set.", "Call set_image(image) before predict.")
            return self._shown

    def _prompts(self, transform: ImageTransform, points: Any, labels: Any, boxes: Any) -> list[tuple[Array, Array]]:
        if (points is None) == (boxes is None):
            raise ConfigError("Give either points or boxes.", "predict(points=[[x, y]]) or predict(boxes=[[...]]).")
        if boxes is None:
            return [self._point_prompt(transform, points, labels)]
        if labels is not None:
            raise ConfigError("Labels belong to points, not to boxes.", "Leave labels out.")
        corners = _numbers(boxes, 4, "boxes").reshape(-1, 2, 2)
        if not 1 <= len(corners) <= MAX_BOXES:
            raise ConfigError(f"{len(corners)} boxes; one call takes 1 to {MAX_BOXES}.", "Call predict several times.")
        if (corners[:, 1] <= corners[:, 0]).any():
            raise ConfigError("A box has no area.", "Give left, top, right, bottom: x2 > x1 and y2 > y1.")
        ends = bool(self.spec.decode.options.get("box_ends"))
        return [box_prompt(transform.to_model(pair), self._slots, ends) for pair in corners]

    def _point_prompt(self, transform: ImageTransform, points: Any, labels: Any) -> tuple[Array, Array]:
        xy = _numbers(points, 2, "points")
        try:
            kinds = np.full(len(xy), INSIDE) if labels is None else np.asarray(labels)
        except ValueError:  # rows of different lengths
            kinds = np.zeros(0)
        if kinds.shape != (len(xy),) or not np.isin(kinds, (INSIDE, OUTSIDE)).all():
            raise ConfigError(f"{len(xy)} points need {len(xy)} labels of 1 or 0.", "Give one label per point.")
        if not 1 <= len(xy) <= self.max_points:
            raise ConfigError(f"{len(xy)} points; this model takes 1 to {self.max_points}.", "Give fewer points.")
        return point_prompt(transform.to_model(xy), kinds, self._slots)

    def _decode(self, shown: _Shown, coords: Array, kinds: Array, multimask: bool) -> tuple[Array, Array]:
        """Logits ``(C, S/4, S/4)`` and predicted IoU ``(C,)`` of the candidates that were asked for."""
        given = {
            **shown.features,
            "point_coords": coords,
            "point_labels": kinds,
            "mask_input": np.zeros(self._inputs["mask_input"].shape, np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
        outputs = self.sessions["decoder"].run({self._inputs[role].name: value for role, value in given.items()})
        logits, iou = outputs[self._outputs["low_res_masks"]][0], outputs[self._outputs["iou_predictions"]][0]
        best = int(np.argmax(iou))
        # The first of the four is meant for prompts that leave no doubt; the others are whole, part and part of a part.
        chosen = slice(1, None) if multimask else slice(best, best + 1)
        return logits[chosen], iou[chosen]


def open_promptable(bundle: Bundle, variant: Variant, options: RuntimeOptions, runtime: str) -> PromptableModel:
    """Load one variant of a bundle of SAM on one runtime.

    Raises:
        ConfigError: the model takes no prompts.
        BundleError: a file of the variant is missing or changed.
        SessionError: the runtime cannot load it.
    """
    if "main" in variant.models:
        raise ConfigError(f"{bundle.name} takes no prompts.", f"Load it with edgecv.Model.load({str(bundle.path)!r}).")
    sessions = open_checked(bundle, variant, options, runtime)
    return PromptableModel(f"{bundle.name}/{variant.name}", bundle.spec_of(variant), sessions, bundle, variant)


def _numbers(values: Any, columns: int, what: str) -> FloatArray:
    try:
        array = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise SpecMismatch(f"{what} must be numbers of shape (N, {columns}).", "Use frame pixels.") from error
    if array.ndim != 2 or array.shape[1] != columns or not np.isfinite(array).all():
        raise SpecMismatch(f"{what} must be finite and (N, {columns}), not {array.shape}.", "Use frame pixels.")
    return array


def _masks(logits: Array, iou: Array, transform: ImageTransform, size_wh: tuple[int, int], low_res: bool) -> Masks:
    made = [_crop(_in_frame(one, transform, size_wh)) for one in logits]
    return Masks(
        xyxy=np.array([box for box, _ in made], np.float32).reshape(-1, 4),
        iou=iou.astype(np.float32),
        crops=tuple(crop for _, crop in made),
        frame_wh=transform.frame_wh,
        low_res=logits.astype(np.float32) if low_res else None,
    )


def _in_frame(logits: Array, transform: ImageTransform, size_wh: tuple[int, int]) -> BoolArray:
    """To the model's size, without the padding, to the frame's size: the order of SAM's own post-processing."""
    cv2 = opencv()
    width, height = content_wh(transform)
    square = cv2.resize(np.ascontiguousarray(logits, np.float32), size_wh, interpolation=cv2.INTER_LINEAR)
    full = cv2.resize(square[:height, :width], transform.frame_wh, interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 0)


def _crop(mask: BoolArray) -> tuple[tuple[int, int, int, int], BoolArray]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return (0, 0, 0, 0), np.zeros((0, 0), np.bool_)
    x1, y1, x2, y2 = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return (x1, y1, x2, y2), mask[y1:y2, x1:x2].copy()
