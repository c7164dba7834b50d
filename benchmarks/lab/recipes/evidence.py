"""Asks the float model and the INT8 models about every picture, and keeps what the figures are made of.

The models of one format are in memory together and answer picture by picture, so the float model answers once for all recipes and
seeds, and a picture is read and fitted once. What is kept of a picture are some numbers and its matched boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from edgecv._internal.progress import Progress, counted
from edgecv.benchmarks.lab.recipes.asked import Side
from edgecv.benchmarks.lab.recipes.logits import Measured
from edgecv.benchmarks.lab.recipes.matches import MatchLog
from edgecv.benchmarks.lab.recipes.measures import measured
from edgecv.benchmarks.lab.recipes.pictures import Part, Pictures
from edgecv.benchmarks.lab.recipes.running import Answer, Runner
from edgecv.bundles.bundle import Bundle
from edgecv.media.images import read_image
from edgecv.quantize.labels.bootstrap import RealArray
from edgecv.quantize.labels.coco import Truth
from edgecv.quantize.labels.evaluate import in_pixels
from edgecv.results import Image

AT_ONCE = 8  # INT8 models that are loaded beside the float one


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A converted recipe; ``row`` is the place of its seed."""

    side: Side
    row: int
    bundle: Bundle


@dataclass(slots=True, kw_only=True, eq=False)
class Evidence:
    """What was measured of one recipe: each measure ``(S, I)``, and its matches of each seed."""

    side: Side
    seeds: int
    pictures: int
    measures: dict[str, RealArray] = field(default_factory=dict)
    logs: tuple[MatchLog, ...] = ()

    def put(self, row: int, picture: int, found: Measured) -> None:
        """Keep the measures of one picture."""
        for name, value in found.items():
            table = self.measures.setdefault(name, np.zeros((self.seeds, self.pictures)))
            table[row, picture] = value


@dataclass(slots=True, kw_only=True, eq=False)
class FormatEvidence:
    """What was measured of all recipes of one format; ``floats`` are the float model's matches."""

    pictures: Pictures
    sides: dict[str, Evidence]
    floats: MatchLog | None

    @classmethod
    def of(cls, sides: Sequence[Side], pictures: Pictures, seeds: int, classes: int) -> FormatEvidence:
        """Nothing yet; ``classes`` 0 for pictures without labelled boxes."""
        count = len(pictures.paths)
        return cls(
            pictures=pictures,
            sides={
                side.recipe.name: Evidence(
                    side=side,
                    seeds=seeds,
                    pictures=count,
                    logs=tuple(MatchLog(classes, count) for _ in range(seeds if classes else 0)),
                )
                for side in sides
            },
            floats=MatchLog(classes, count) if classes else None,
        )

    def gather(
        self,
        candidates: Sequence[Candidate],
        part: Part,
        progress: Progress,
        *,
        decodes: bool = True,
        at_once: int = AT_ONCE,
    ) -> None:
        """Let the candidates of one part answer the pictures that judge it.

        Args:
            candidates: Of one format.
            part: Which pictures.
            progress: Called as it goes on.
            decodes: Whether boxes or classes are made of the outputs.
            at_once: How many answer beside one float model, which is that of the first of them. Random weights have one for each
                bundle, since batch norms see the calibration pictures: 1 is right for them.

        Raises:
            EdgeCVError: a model cannot be loaded or run, or a picture cannot be read.
        """
        for start in range(0, len(candidates), at_once):
            self._gather(candidates[start : start + at_once], part, progress, decodes, first=not start)

    def _gather(self, group: Sequence[Candidate], part: Part, progress: Progress, decodes: bool, first: bool) -> None:
        names = ", ".join(dict.fromkeys(candidate.side.recipe.name for candidate in group))
        with ExitStack() as stack:
            teacher, *runners = (
                stack.enter_context(Runner(bundle, variant, decodes=decodes))
                for bundle, variant in (
                    (group[0].bundle, group[0].bundle.variants[0]),
                    *((candidate.bundle, candidate.bundle.variants[-1]) for candidate in group),
                )
            )
            for place in counted(progress, f"Judging {names} ({part.name})", part.judged):
                image = read_image(self.pictures.paths[place])
                wanted, *found = _answers([teacher, *runners], image)
                if first:
                    self._log(self.floats, place, image, wanted)
                for candidate, answer in zip(group, found, strict=True):
                    self._take(candidate, place, image, wanted, answer)

    def _take(self, candidate: Candidate, place: int, image: Image, wanted: Answer, found: Answer) -> None:
        evidence, truth = self.sides[candidate.side.recipe.name], self._truth(place)
        evidence.put(candidate.row, place, measured(wanted, found, truth if isinstance(truth, int) else None))
        self._log(evidence.logs[candidate.row] if evidence.logs else None, place, image, found)

    def _log(self, log: MatchLog | None, place: int, image: Image, answer: Answer) -> None:
        truth = self._truth(place)
        if log is not None and answer.every is not None and isinstance(truth, Truth):
            log.add(place, in_pixels(truth, (image.shape[1], image.shape[0])), answer.every)

    def _truth(self, place: int) -> Truth | int | None:
        return None if self.pictures.truth is None else self.pictures.truth[place]


def _answers(runners: Sequence[Runner], image: Image) -> Iterator[Answer]:
    """Answers to one picture, which is fitted once for all that take it in the same form."""
    feeds = runners[0].feeds(image)
    for runner in runners:
        yield runner.answer(feeds if runner.inputs == runners[0].inputs else runner.feeds(image))
