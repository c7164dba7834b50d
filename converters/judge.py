"""What is asked of a float and of an INT8 model, and how the answers are judged: by each other, and by labels if there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgecv._internal.foreign import errors_named
from edgecv._internal.progress import Progress, counted
from edgecv.converters.parity import outputs_of
from edgecv.converters.source import SourceModel
from edgecv.errors import CalibrationError
from edgecv.media.images import read_image
from edgecv.model import Model
from edgecv.promptable import PromptableModel
from edgecv.protocols import Session
from edgecv.quantize.gate.accuracy_gate import (
    MULTI_LABEL,
    GateReport,
    answers,
    check_classes,
    check_teacher,
    compare,
    judge_outputs,
)
from edgecv.quantize.gate.class_scores import (
    FloatScores,
    Look,
    ScoreError,
    ScoreErrors,
    TappedSession,
    has_class_scores,
)
from edgecv.quantize.gate.masks import judge_masks, mask_answers
from edgecv.quantize.gate.paired import image_figures
from edgecv.quantize.gate.strict import strictly, tightened
from edgecv.quantize.gate.threshold import LOW_CONFIDENCE, tune_confidence, tune_confidence_labelled
from edgecv.quantize.gate.worst import worst_images
from edgecv.quantize.labels.int8_loss import LabelledSet, compare_scores, labelled_check
from edgecv.quantize.labels.scores import DetectorScores, Scores
from edgecv.quantize.quantizer import Exported
from edgecv.quantize.recipes import GateLimits, QuantizeRecipe
from edgecv.quantize.record import ThresholdRecord, WorstImage
from edgecv.quantize.search import Judgement
from edgecv.results import Detections
from edgecv.vision.letterbox import fit

_LEAST_BOXES_PER_IMAGE = 0.25  # photographs of COCO have seven
BOX_TASKS = ("detect", "segment", "pose", "obb")

Parts = Mapping[str, Exported]
Open = Callable[[Parts], Mapping[str, Session]]


@dataclass(slots=True, kw_only=True, eq=False)
class AccuracyJudge:
    """Asks the float model once, then judges any number of candidates of one format.

    Where the float model sees next to nothing, and no labels are there to judge by, that is a ``CalibrationError``.
    """

    source: SourceModel
    images: Sequence[Path]  # that calibration did not see
    labelled: LabelledSet | None
    max_drop: float  # points that INT8 may lose on labels
    sessions: Open  # of the parts of a candidate
    floats: InitVar[Parts]
    progress: Progress
    strict: bool = False  # hold candidates against the limits of `--strict`
    unfit: str = field(default="", init=False)  # what is wrong with the images, the likely cause of a failure
    _wanted: Sequence[Any] = field(init=False)
    _float_scores: Scores | None = field(init=False)
    _raw: FloatScores = field(init=False)

    def __post_init__(self, floats: Parts) -> None:
        if not self.source.trained:
            self.labelled = None  # they prove nothing
        self._ask_float(floats, "Float model on held-out images")
        self._check_teacher(floats)
        self._float_scores = self._scored(floats, "Float model on labelled images")

    @property
    def _task(self) -> str:
        return self.source.spec.decode.task

    def judge(self, parts: Parts, recipe: QuantizeRecipe) -> Judgement:
        """Judge a candidate: by the float model's answers, then, if it passes, by labels. An error says in which recipe."""
        # A full disk is no fault of the gate, and a signal becomes an ImportError while a module is imported.
        with errors_named(f"The accuracy gate, recipe {recipe.name}", passing=(OSError, ImportError)):
            return self._judged(parts, recipe)

    def _judged(self, parts: Parts, recipe: QuantizeRecipe) -> Judgement:
        errors = ScoreErrors(self._raw)
        found = self._asked(parts, f"{recipe.name} on held-out images", errors.look)
        error = errors.error() if self._raw.images else None
        wanted, given = self._at_default(self._wanted), self._at_default(found)
        figures = None if error is None else image_figures(wanted, given, error)
        report = self._gated(found, error, recipe)
        if not report.passed or self._float_scores is None:
            return Judgement(report=report, answers=found, images=figures)
        scores = self._scored(parts, f"{recipe.name} on labelled images")
        assert scores is not None
        loss = compare_scores(self._float_scores, scores, self.source.spec.decode.labels)
        check = labelled_check(loss, self.max_drop)
        return Judgement(
            report=replace(report, checks=(*report.checks, check)),
            labelled=loss,
            answers=found,
            images=figures,
            scores=scores,
        )

    def worst(self, judgement: Judgement) -> tuple[WorstImage, ...]:
        """The held-out images on which a candidate strays furthest."""
        if self._task not in BOX_TASKS or not self.source.trained:
            return ()
        pairs = self._at_default(self._wanted), self._at_default(judgement.answers)
        return worst_images(self.images, *pairs, self.source.spec.decode.labels)

    def threshold(self, judgement: Judgement) -> ThresholdRecord | None:
        """The confidence that keeps the float model's precision; ``None`` where the task has none."""
        if self._task not in BOX_TASKS or not self.source.trained:
            return None
        default = self.source.spec.decode.confidence
        if isinstance(self._float_scores, DetectorScores) and isinstance(judgement.scores, DetectorScores):
            return tune_confidence_labelled(self._float_scores.pairs, judgement.scores.pairs, default)
        return tune_confidence(self._wanted, judgement.answers, default)

    def _check_teacher(self, floats: Parts) -> None:
        """Where the float model sees too little in the held-out images, the labelled ones judge instead.

        Where it sees next to nothing, the calibration images are wrong: that is remembered as the likely cause of a failure.
        """
        if self._task == "promptable-segment" or not self.source.trained:
            return
        try:
            self._check_wanted()
        except CalibrationError as error:
            if self.labelled is None:
                raise
            self._remember_cause(error)
            self.images = tuple(self.labelled.images)
            self._ask_float(floats, "Float model on labelled images")
            self._check_wanted()

    def _check_wanted(self) -> None:
        if self._task in BOX_TASKS:
            check_teacher(sum(len(found) for found in self._at_default(self._wanted)), len(self.images))
        else:
            check_classes(self._wanted)

    def _remember_cause(self, error: CalibrationError) -> None:
        """A few objects too few is a small set; next to none, or one class, are the wrong images."""
        boxes = sum(len(found) for found in self._at_default(self._wanted))
        if self._task not in BOX_TASKS or boxes < _LEAST_BOXES_PER_IMAGE * len(self.images):
            self.unfit = f"The calibration images are not what the model was trained for: {error.message}"

    def _ask_float(self, floats: Parts, step: str) -> None:
        self._raw = FloatScores()
        self._wanted = self._asked(floats, step, self._raw.look)

    def _asked(self, parts: Parts, step: str, look: Look) -> Sequence[Any]:
        if self._task == "promptable-segment":
            with PromptableModel(self.source.name, self.source.spec, self.sessions(parts)) as prompted:
                return mask_answers(prompted, self.images, step, self.progress)
        if not self.source.trained:
            return self._computed(parts, step)
        with self._model(parts, look) as model:
            confidence = LOW_CONFIDENCE if self._task in BOX_TASKS else None
            return answers(model, self.images, step, self.progress, confidence)

    def _computed(self, parts: Parts, step: str) -> Sequence[Any]:
        """Raw outputs: two untrained models have no answers that could agree."""
        part = self.source.parts[0]
        found = []
        with closing(self.sessions({part.name: parts[part.name]})[part.name]) as session:
            for path in counted(self.progress, step, self.images):
                feeds = self.source.entry(fit(read_image(path), self.source.spec.preprocess)[0])
                found.append(outputs_of(part, parts[part.name], session, feeds))
        return found

    def _scored(self, parts: Parts, step: str) -> Scores | None:
        if self.labelled is None:
            return None
        with self._model(parts) as model:
            return self.labelled.score(model, lambda _, done, total: self.progress(step, done, total))

    def _model(self, parts: Parts, look: Look | None = None) -> Model:
        session = self.sessions(parts)["main"]
        if look is not None and has_class_scores(session.outputs):
            session = TappedSession(session, len(self.images), look)
        return Model(self.source.name, self.source.spec, session)

    def _gated(self, found: Sequence[Any], error: ScoreError | None, recipe: QuantizeRecipe) -> GateReport:
        """The figures against the recipe's limits, or against the strict ones."""
        report = self._agreement(found, error, recipe.limits, recipe.name)
        if not self.strict:
            return report
        return strictly(self._agreement(found, error, tightened(recipe.limits), recipe.name), report)

    def _agreement(self, found: Sequence[Any], error: ScoreError | None, limits: GateLimits, recipe: str) -> GateReport:
        if self._task == "promptable-segment":
            return judge_masks(self._wanted, found, limits, recipe, self.source.trained)
        if not self.source.trained:
            return judge_outputs(self._wanted, found, limits, recipe)
        report = compare(self._compared_as(), self._at_default(self._wanted), self._at_default(found), limits, recipe)
        return report if error is None else replace(report, checks=(*report.checks, error.check(limits)))

    def _compared_as(self) -> str:
        """The task, but for a classifier whose classes do not exclude each other."""
        decode = self.source.spec.decode
        alone = decode.options.get("activation") == "sigmoid" and len(decode.labels) > 2
        return MULTI_LABEL if alone else self._task

    def _at_default(self, found: Sequence[Any]) -> Sequence[Any]:
        """Answers made at a low confidence as those at the default: suppression never lets a lower box remove a higher one."""
        default = self.source.spec.decode.confidence
        return [a[a.confidence >= default] if isinstance(a, Detections) else a for a in found]
