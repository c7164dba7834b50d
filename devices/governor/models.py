"""The governor's last rungs: cheaper variants of the bundle that runs, as ``edgecv tune`` measured them on this device."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from edgecv._internal.printable import printable
from edgecv.bundles.cpu_classes import suits_device
from edgecv.bundles.manifest import Variant
from edgecv.bundles.metric_names import figures
from edgecv.choosing import LoadOptions, runnable, runtime_options
from edgecv.devices.tuning.advice import Question, measured
from edgecv.devices.tuning.cells import Cell
from edgecv.devices.tuning.machine import this_machine
from edgecv.devices.tuning.record import TuneRecord, key_of, read_record
from edgecv.errors import ConfigError
from edgecv.model import Model
from edgecv.tiles.model import TiledModel

_CLEARLY = 0.9  # of the processor time of the model before: what saves less is no rung
_WARM_UP = 2  # images, before a model is given to the pipeline

log = logging.getLogger("edgecv.governor")


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """Which variant runs from now on, and which one ran before."""

    before: Variant
    now: Variant

    def as_data(self) -> dict[str, Any]:
        """For the event: both names, and what the bundle says of their accuracy."""
        accuracy = {variant.name: dict(variant.metrics) for variant in (self.before, self.now)}
        return {"from": self.before.name, "to": self.now.name, "accuracy": accuracy}

    def __str__(self) -> str:
        return f"{_described(self.now)} instead of {_described(self.before)}"


class CheaperModels:
    """The model that runs, which is number 0, and cheaper variants of its bundle.

    Each is loaded and warmed up when it is first wanted, and stays loaded, so the way back takes no time. Close it after the
    pipeline has ended: frames in flight may still use any of them. The model that it was made with is not closed.
    """

    def __init__(self, model: Model, cells: Sequence[Cell] = (), **options: Any) -> None:
        """Take note of them; nothing is loaded yet.

        Args:
            model: The one that runs.
            cells: Cheaper ones of its bundle, the dearest first.
            options: What the model was loaded with; see ``edgecv.load``.
        """
        self._cells, self._options = cells, options
        self._models: dict[int, Model] = {0: model}
        self._running = 0
        self._changing = threading.Lock()
        self._closed = False

    @classmethod
    def of(cls, model: Model, options: LoadOptions) -> CheaperModels:
        """Those that were measured on this device; where there are none, why is said in one line of the log."""
        return cls(model, _cells(model, options), **options)

    @property
    def count(self) -> int:
        """How many models there are, the one that runs included."""
        return 1 + len(self._cells)

    def take(self, number: int) -> tuple[Model, Swap]:
        """A loaded model that is to run from now on, and what changes by it.

        Raises:
            EdgeCVError: it cannot be loaded.
        """
        model = self._models.get(number) or self._loaded(number)
        swap = Swap(before=_variant(self._models[self._running]), now=_variant(model))
        self._running = number
        return model, swap

    def close(self) -> None:
        """Free what was loaded; what is being loaded at this moment is freed as soon as it is."""
        with self._changing:
            self._closed = True
            loaded = [model for number, model in self._models.items() if number]
        for model in loaded:
            model.close()

    def __enter__(self) -> CheaperModels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _loaded(self, number: int) -> Model:
        cell, bundle = self._cells[number - 1], self._models[0].bundle
        assert bundle is not None
        chosen = {
            "variant": cell.variant,
            "runtime": cell.runtime,
            "precision": "auto",
        }  # with the threads of the tuning
        model, first = Model.load(bundle.path, **{**self._options, **chosen}), self._models[0]
        if isinstance(first, TiledModel):
            model = TiledModel(model, first.tiles)
        _warm_up(model)
        with self._changing:
            if not self._closed:
                self._models[number] = model
                return model
        model.close()
        raise ConfigError("The run has ended.")


def cheaper_cells(model: Model, record: TuneRecord, options: LoadOptions) -> tuple[Cell, ...]:
    """Other variants that take clearly less processor time for an image than a running one, the dearest first.

    Each variant is taken as ``edgecv.load`` would run it. Runtime, device and threads that are asked for stay as they are; a
    precision that is asked for is what the run begins with.
    """
    assert model.bundle is not None
    shape = _variant(model).size_wh
    asked = runtime_options(**{**options, "precision": "auto", "variant": ""})
    pairs = [
        pair
        for pair in runnable(model.bundle, asked)
        if pair[0].size_wh == shape and suits_device(pair[0].cpu_class, asked.device)
    ]
    of_each = [
        measured(record, Question(bundle=model.bundle, pairs=list(group), options=asked))
        for _, group in groupby(pairs, lambda pair: pair[0].name)
    ]
    cost = {result.cell: (result.median_ms or 0.0) * result.cell.threads for result in record.results}
    cells = sorted((cell for cell in of_each if cell is not None), key=cost.__getitem__, reverse=True)
    running = next((cell for cell in cells if cell.variant == _variant(model).name), None)
    return () if running is None else tuple(_descending([running, *cells[cells.index(running) + 1 :]], cost))


def _descending(cells: Sequence[Cell], cost: dict[Cell, float]) -> Iterator[Cell]:
    """Those that are clearly cheaper than the one before; the first is what they are compared with."""
    last = cells[0]
    for cell in cells[1:]:
        if cost[cell] <= _CLEARLY * cost[last]:
            last = cell
            yield cell


def _cells(model: Model, options: LoadOptions) -> tuple[Cell, ...]:
    bundle = model.bundle
    if bundle is None or options.get("precision") == "bf16":  # nothing of these is tuned
        return ()
    record = read_record(key_of(bundle, this_machine()), bundle.name)
    where = printable(str(bundle.path))
    if record is None:
        log.warning(
            "The governor lowers the frame rate alone: nothing says which variants are cheaper here. Measure it: edgecv tune %s",
            where,
        )
        return ()
    cells = cheaper_cells(model, record, options)
    if not cells:
        log.info("The governor lowers the frame rate alone: no variant of %s is cheaper here.", where)
    return cells


def _variant(model: Model) -> Variant:
    assert model.variant is not None
    return model.variant


def _described(variant: Variant) -> str:
    accuracy = figures(variant.metrics)
    return f"{variant.name} ({accuracy})" if accuracy else variant.name


def _warm_up(model: Model) -> None:
    width, height = model.spec.preprocess.size_wh
    for _ in range(_WARM_UP):
        model(np.zeros((height, width, 3), np.uint8))
