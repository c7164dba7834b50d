"""``tune``: measure on this device which variant of a bundle is the fastest, with which runtime and how many threads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path

from edgecv._internal.progress import Progress, silent
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.cpu_classes import suits_device
from edgecv.choosing import check_exists, runnable, runtime_options
from edgecv.devices.sensors.sensors import Sensors
from edgecv.devices.tuning.advice import preferred
from edgecv.devices.tuning.cells import Cell, cells_of, thread_counts
from edgecv.devices.tuning.contest import Contest
from edgecv.devices.tuning.disturbance import Disturbance
from edgecv.devices.tuning.engines import build_engines
from edgecv.devices.tuning.machine import Machine, this_machine
from edgecv.devices.tuning.record import SCHEMA, TuneKey, TuneRecord, key_of, read_record, write_record
from edgecv.devices.tuning.rules import Gate, Outcome
from edgecv.devices.tuning.workshop import BundleChanged, Workshop, workshop
from edgecv.errors import BundleError, ConfigError, EdgeCVError, SessionError, in_one_line
from edgecv.vision.input_shapes import Size, shape_name

BUDGET_S = 90.0
_AFTERWARDS = 0.02  # of the budget: what checking the files once more and writing the result may take
_NO_ENGINE = "no engine: "  # begins the reason of a cell whose engine could not be built
_AGAIN = "Run edgecv tune again when nobody writes to the bundle."


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """How long to tune, what to try, and whether an earlier result counts."""

    budget_s: float = BUDGET_S  # no block begins later than this
    threads: tuple[int, ...] = ()  # the thread counts to try; empty: those that are worth it here
    devices: tuple[str, ...] = ()  # what to compute on; empty: the CPU, and every accelerator that is usable
    again: bool = False  # measure even where a record exists that counts and tried all of this


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What is known after a tuning."""

    record: TuneRecord
    path: Path | None  # where it is kept; `None` where it could not be, and
    trouble: str = ""  # why not
    measured_now: bool = True  # or an earlier record counts


def tune(path: str | Path, options: TuneOptions | None = None, progress: Progress = silent) -> Tuning:
    """Measure a bundle on this device and keep the result, which ``edgecv.load`` and ``edgecv run`` use from then on.

    Args:
        path: The bundle.
        options: How.
        progress: Told of each stage.

    Raises:
        ModelError: there is nothing at ``path``.
        DeviceError: nothing of the bundle computes on a device that was asked for.
        BundleError: the bundle is damaged, or changed while it was tuned: then nothing is kept.
        MissingDependency: no runtime for it is installed.
        SessionError: nothing of it runs here; the message says why.
    """
    options = options or TuneOptions()
    if not options.budget_s > 0:  # NaN, too
        raise ConfigError(f"The budget must be above 0 s, not {options.budget_s:g}.", "90 s is usual.")
    check_exists(Path(path))
    bundle, machine = Bundle.open(path), this_machine()
    for device in options.devices:  # what was asked for takes part, or it is an error
        runnable(bundle, runtime_options(device=device))
    options = replace(options, devices=options.devices or machine.devices)
    key = key_of(bundle, machine)
    failed = _build(bundle, machine, options, progress)  # also where a record counts: engines may be gone
    earlier = None if options.again else read_record(key, bundle.name)
    contests = cells_for(bundle, machine, options)
    if earlier is not None and still_counts(earlier, set(chain(*contests)), failed):
        return Tuning(record=earlier, path=None, measured_now=False)
    record = _measured(bundle, machine, contests, options, progress, failed)
    try:
        return Tuning(record=record, path=write_record(record))
    except EdgeCVError as error:
        return Tuning(record=record, path=None, trouble=in_one_line(error.message, error.hint))


def cells_for(bundle: Bundle, machine: Machine, options: TuneOptions) -> tuple[tuple[Cell, ...], ...]:
    """What takes part: every variant on every installed runtime that runs it, in the machine's order.

    Each input shape has a contest of its own, the model's own first: a shape is chosen by what it fits, not by its speed.
    """
    pairs = preferred(runnable(bundle, runtime_options()), machine.order)
    own = bundle.sizes_wh[0]

    def contest(size_wh: Size) -> tuple[Cell, ...]:
        named = [(variant.name, variant.precision, name) for variant, name in pairs if variant.size_wh == size_wh]
        return _cells_of(named, machine, options, "" if size_wh == own else shape_name(size_wh))

    return tuple(filter(None, map(contest, bundle.sizes_wh)))


def _cells_of(
    named: Sequence[tuple[str, str, str]], machine: Machine, options: TuneOptions, shape: str
) -> tuple[Cell, ...]:
    devices = options.devices or machine.devices
    if options.threads:  # those that are asked for, wherever the system lets them run
        return cells_of(named, options.threads, devices, shape=shape)
    counts = thread_counts(machine.usable_cpus, machine.more_threads)
    return cells_of(named, counts, devices, machine.big_cores, shape)


def still_counts(record: TuneRecord, cells: Set[Cell], failed: Mapping[str, str]) -> bool:
    """Whether an earlier result tried all of these cells, and the engines that could not be built then cannot be built now."""
    missed = {one.cell.variant for one in record.results if one.reason.startswith(_NO_ENGINE)}
    on_tensorrt = {cell.variant for cell in cells if cell.device == "tensorrt"}
    return cells <= {one.cell for one in record.results} and missed & on_tensorrt == failed.keys() & on_tensorrt


def class_gate(bundle: Bundle, then: Gate) -> Gate:
    """Refuse what was built for another CPU class; ask ``then`` about the rest."""
    classes = {variant.name: variant.cpu_class for variant in bundle.variants}

    def gate(cell: Cell) -> str:
        built_for = classes[cell.variant]
        return then(cell) if suits_device(built_for, cell.device) else f"it was built for {built_for}"

    return gate


def engine_gate(failed: Mapping[str, str], then: Gate) -> Gate:
    """Refuse on TensorRT a variant whose engine could not be built, with the reason; ask ``then`` about the rest."""

    def gate(cell: Cell) -> str:
        reason = failed.get(cell.variant) if cell.device == "tensorrt" else None
        return then(cell) if reason is None else f"{_NO_ENGINE}{reason}"

    return gate


def _build(bundle: Bundle, machine: Machine, options: TuneOptions, progress: Progress) -> dict[str, str]:
    """Build TensorRT's engines that are not there yet; the reasons why one could not be, by variant."""
    cells = [cell for cell in chain(*cells_for(bundle, machine, options)) if cell.device == "tensorrt"]
    gate = class_gate(bundle, lambda _: "")
    try:
        with workshop(bundle) as shop:
            return build_engines([cell for cell in cells if not gate(cell)], shop, progress)
    except BundleChanged as error:
        raise BundleError(str(error), _AGAIN) from error


def _measured(
    bundle: Bundle,
    machine: Machine,
    contests: Sequence[Sequence[Cell]],
    options: TuneOptions,
    progress: Progress,
    failed: Mapping[str, str],
) -> TuneRecord:
    key = key_of(bundle, machine)
    shared = replace(options, budget_s=options.budget_s / len(contests))
    outcomes: list[Outcome] = []
    try:
        with workshop(bundle) as shop, Sensors() as sensors:
            disturbed = Disturbance(sensors)
            gate = class_gate(bundle, engine_gate(failed, shop.gate))
            for cells in contests:
                outcomes.append(_contest(cells, shop, gate, shared, progress, disturbed).run())
                shop.close()
    except BundleChanged as error:
        raise BundleError(str(error), _AGAIN) from error
    _check_unchanged(bundle, key, machine)
    outcomes.sort(key=lambda outcome: outcome.best is None)  # one that found nothing says nothing of the bundle
    results = tuple(result for outcome in outcomes for result in outcome.results)
    if outcomes[0].best is None:
        reasons = dict.fromkeys(result.reason for result in results)
        raise SessionError(f"Nothing of {bundle.path} could be measured: {' '.join(reasons)}", "edgecv verify BUNDLE")
    return TuneRecord(
        schema=SCHEMA,
        name=bundle.name,
        key=key,
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        elapsed_s=round(sum(outcome.elapsed_s for outcome in outcomes), 2),
        budget_s=options.budget_s,
        results=results,
    )


def _contest(
    cells: Sequence[Cell],
    shop: Workshop,
    gate: Gate,
    options: TuneOptions,
    progress: Progress,
    disturbed: Disturbance,
) -> Contest:
    return Contest(
        cells,
        shop.measure,
        gate,
        clock=time.monotonic,
        budget_s=options.budget_s * (1 - _AFTERWARDS),
        release=shop.release,
        progress=progress,
        disturbed=disturbed,
    )


def _check_unchanged(bundle: Bundle, key: TuneKey, machine: Machine) -> None:
    """Raise ``BundleError`` unless the bundle, and every file of it, is what it was."""
    now = Bundle.open(bundle.path)
    if key_of(now, machine).bundle != key.bundle:
        raise BundleError(f"{bundle.path} changed while it was tuned.", _AGAIN)
    now.verify_files()
