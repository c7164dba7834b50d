"""Which variant of a bundle runs on this device: what ``edgecv tune`` measured here, else the order of the device's profile."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from edgecv._internal.printable import printable
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.manifest import Variant
from edgecv.choosing import Advice
from edgecv.devices.tuning.cells import Cell, threads_in_words
from edgecv.devices.tuning.machine import Machine, this_machine
from edgecv.devices.tuning.record import TuneRecord, key_of, read_record
from edgecv.devices.tuning.rules import best_of
from edgecv.specs import RuntimeOptions

Pair = tuple[Variant, str]  # a variant, and a runtime that runs it

log = logging.getLogger("edgecv.choosing")


def advise(bundle: Bundle, pairs: Sequence[Pair], options: RuntimeOptions) -> Advice:
    """What to run on the machine at hand; see ``edgecv.choosing.Adviser``."""
    machine = this_machine()
    record = read_record(key_of(bundle, machine), bundle.name) if options.precision != "bf16" else None
    return advise_on(machine, record, Question(bundle=bundle, pairs=pairs, options=options))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: which of the pairs of a bundle, with these options."""

    bundle: Bundle
    pairs: Sequence[Pair]
    options: RuntimeOptions


def advise_on(machine: Machine, record: TuneRecord | None, question: Question) -> Advice:
    """The best cell that was measured and fits; where there is none the first pair in the order of the machine.

    Which it was is said in one line of the log.
    """
    cell = measured(record, question) if record is not None else None
    advice = _as_ordered(machine, question) if cell is None else _as_measured(cell, question)
    what = printable(f"{question.bundle.path.name}: {advice.variant.name} on {advice.runtime}")
    if cell is not None:
        threads = threads_in_words(advice.threads, advice.cores)
        log.info("%s, %s: the fastest that `edgecv tune` measured here.", what, threads)
    elif len(question.pairs) > 1:
        hint = f"`edgecv tune {printable(str(question.bundle.path))}` measures which is the fastest here"
        log.info("%s: the first in the order for %s; %s.", what, machine.profile, hint)
    return advice


def preferred(pairs: Sequence[Pair], order: Sequence[tuple[str, str]]) -> list[Pair]:
    """Pairs in an order of (precision, runtime), what it does not name last.

    INT8 that holds only its weights in 8 bits computes in float: it comes right after all that computes in 8 bits.
    """
    places = {key: place for place, key in enumerate(order)}
    after_int8 = max((place for (precision, _), place in places.items() if precision == "int8"), default=len(places))

    def rank(pair: Pair) -> tuple[int, bool, int]:
        place = places.get((pair[0].precision, pair[1]), len(places))
        return (after_int8, True, place) if _weights_only(pair[0]) else (place, False, place)

    return sorted(pairs, key=rank)


def _weights_only(variant: Variant) -> bool:
    return variant.precision == "int8" and any(word in variant.recipe for word in ("weights", "dynamic"))


def measured(record: TuneRecord, question: Question) -> Cell | None:
    """The best measured cell: with the threads that are asked for, or enough for all lanes, if there is one."""
    options, names = question.options, {(variant.name, runtime) for variant, runtime in question.pairs}

    def fits(cell: Cell) -> bool:
        return (cell.variant, cell.runtime) in names and cell.device == options.device

    def has_threads(cell: Cell) -> bool:
        return fits(cell) and (cell.threads == options.threads if options.threads else cell.threads >= options.lanes)

    return best_of(record.results, has_threads) or best_of(record.results, fits)


def _as_measured(cell: Cell, question: Question) -> Advice:
    variant = next(variant for variant, _ in question.pairs if variant.name == cell.variant)
    threads = question.options.threads or cell.threads
    cores = cell.cores if threads == cell.threads else ()
    return Advice(variant=variant, runtime=cell.runtime, threads=threads, cores=cores)


def _as_ordered(machine: Machine, question: Question) -> Advice:
    variant, runtime = preferred(question.pairs, machine.order)[0]
    return Advice(variant=variant, runtime=runtime, threads=question.options.threads)
