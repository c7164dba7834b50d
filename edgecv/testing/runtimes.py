"""``check_runtime``: what every runtime adapter keeps, EdgeCV's own and those of plug-ins.

EdgeCV runs these checks on ONNX Runtime, OpenVINO and LiteRT (``tests/contract/test_runtimes.py``). They tell nothing of speed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from edgecv import registry
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import verify_variant
from edgecv.errors import DeviceError, SessionError, SpecMismatch
from edgecv.protocols import Array, Session
from edgecv.specs import RuntimeOptions, TensorSpec
from edgecv.testing.subject import ContractBroken, RuntimeSubject, expect, in_threads, refused, within

_ROUNDS = 50  # runs of each thread
_CHECK_DEADLINES = 3  # how often the deadline of its threads a whole check may take
_NOBODY = "toaster"  # a device that no runtime has
_ABSENT = TensorSpec(name="edgecv-absent", role="", shape=(1,), dtype="float32")


def check_runtime(
    runtime: str,
    model: str | Path,
    feeds: Mapping[str, Array],
    *,
    wanted: Mapping[str, Array] | None = None,
    options: RuntimeOptions | None = None,
    tolerance: float = 0.0,
    bundle: str | Path | None = None,
    deadline_s: float = 60.0,
) -> tuple[str, ...]:
    """Run every check on a runtime, and tell all that fail at once. After a check that does not end the others are left out.

    Args:
        runtime: Its registered name, such as ``hailo``.
        model: A small model file that it runs.
        feeds: Inputs of that model by name.
        wanted: What the model gives for them; without it only that the answer stays the same is checked.
        options: How to open it. A runtime that does not compute on the CPU is given its ``device`` here.
        tolerance: By how much outputs may differ, as a part of the largest value; 0 for not at all.
        bundle: A bundle with golden vectors whose variants it runs.
        deadline_s: How long what runs in threads may take; a whole check may take three times as long.

    Returns:
        The names of the checks that passed; ``golden_vectors`` only with a bundle.

    Raises:
        ContractBroken: at least one check failed; the message has a line for each.
        UnknownPlugin: no runtime has that name.
    """
    subject = RuntimeSubject(
        runtime=runtime,
        model=Path(model),
        feeds=feeds,
        wanted=wanted or {},
        options=options or RuntimeOptions(threads=1),
        tolerance=tolerance,
        bundle=None if bundle is None else Path(bundle),
        deadline_s=deadline_s,
    )
    registry.place("runtimes", runtime)  # names the known ones when it is misspelt
    names = [name for name in RUNTIME_CHECKS if name != "golden_vectors" or subject.bundle is not None]
    said: dict[str, str] = {}
    for name in names:
        try:
            said[name] = within(partial(_said, RUNTIME_CHECKS[name], subject), _CHECK_DEADLINES * deadline_s)
        except TimeoutError as error:
            said[name] = f"{error} What comes after it was not tried."
            break
    broken = {name: what for name, what in said.items() if what}
    if broken:
        lines = "\n".join(f"  {name}: {what}" for name, what in broken.items())
        raise ContractBroken(f"{len(broken)} of {len(names)} checks of the runtime '{runtime}' fail:\n{lines}")
    return tuple(names)


def _said(check: Callable[[RuntimeSubject], None], subject: RuntimeSubject) -> str:
    """What a check says; empty where it passes."""
    try:
        check(subject)
    except ContractBroken as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever an adapter raises where nothing should be raised
        return f"{type(error).__name__}: {error}"
    return ""


def declares_what_it_runs(subject: RuntimeSubject) -> None:
    """The class names its package, formats and suffixes, and runs the suffix of the model."""
    adapter = subject.adapter
    expect(importlib.util.find_spec(adapter.package), f"the package '{adapter.package}' is not installed.")
    expect(adapter.formats and all(adapter.formats), "it names no format of bundles.")
    expect(subject.model.suffix in adapter.suffixes, f"its suffixes {adapter.suffixes} lack {subject.model.suffix}.")


def says_what_it_takes_and_gives(subject: RuntimeSubject) -> None:
    """Without specs it says names, shapes and dtypes of the file, and on what it computes."""
    with subject.opened() as session:
        expect(session.inputs and session.outputs, "it says no inputs or no outputs.")
        expect(
            {spec.name for spec in session.inputs} == set(subject.feeds), "its inputs have other names than the feeds."
        )
        for spec in session.inputs:
            feed = subject.feeds[spec.name]
            expect(_fits(feed, spec), f"input '{spec.name}' is {spec.dtype}{spec.shape}, not {feed.dtype}{feed.shape}.")
        expect(session.providers and all(session.providers), "it does not say on what it computes (providers).")


def gives_outputs_by_name(subject: RuntimeSubject) -> None:
    """Outputs come under their names, with the shapes and dtypes of their specs, and with the right values."""
    with subject.opened() as session:
        found = session.run(subject.feeds)
        expect(set(found) == {spec.name for spec in session.outputs}, f"it gives the outputs {sorted(found)}.")
        for spec in session.outputs:
            value = found[spec.name]
            expect(_fits(value, spec), f"output '{spec.name}' is {value.dtype}{value.shape}, not as its spec says.")
        subject.same(found, subject.wanted, "at the first run")


def gives_the_same_twice(subject: RuntimeSubject) -> None:
    """The same inputs give the same outputs, and the inputs are left as they are."""
    before = {name: value.copy() for name, value in subject.feeds.items()}
    with subject.opened() as session:
        first = session.run(subject.feeds)
        subject.same(session.run(subject.feeds), first, "at the second run")
    expect(all(np.array_equal(before[name], value) for name, value in subject.feeds.items()), "it changes its inputs.")


def keeps_results(subject: RuntimeSubject) -> None:
    """An output stays as it is when the session runs again with other inputs, and when it is closed."""
    with subject.opened() as session:
        first = session.run(subject.feeds)
        kept = {name: value.copy() for name, value in first.items()}
        session.run(_others(subject))
    expect(_are_equal(kept, first), "a later run writes into the outputs of an earlier one.")


def keeps_no_inputs(subject: RuntimeSubject) -> None:
    """Once a run has ended its inputs may be written over: its outputs stay, and the next run reads what stands there then."""
    feeds = {name: value.copy() for name, value in subject.feeds.items()}
    others = _others(subject)
    with subject.opened() as session:
        wanted = {name: value.copy() for name, value in session.run(others).items()}
        first = session.run(feeds)
        kept = {name: value.copy() for name, value in first.items()}
        for name, value in feeds.items():
            value[...] = others[name]
        expect(_are_equal(kept, first), "an output changes with the input that it was made of.")
        subject.same(session.run(feeds), wanted, "with other values in the same array")


def keeps_given_specs(subject: RuntimeSubject) -> None:
    """Specs that are given are the session's, with their roles; outputs that are not asked for are left out."""
    with subject.opened() as plain:
        inputs = tuple(_with_role(spec) for spec in plain.inputs)
        outputs = tuple(_with_role(spec) for spec in plain.outputs[:1])
    with subject.opened(None, inputs, outputs) as session:
        expect(session.inputs == inputs and session.outputs == outputs, "it changes the specs that it is given.")
        expect(set(session.run(subject.feeds)) == {outputs[0].name}, "it gives outputs that nobody asked for.")


def refuses_a_spec_of_no_tensor(subject: RuntimeSubject) -> None:
    """A spec of a tensor that the file lacks is a ``SessionError`` that names it."""

    def run() -> None:
        with subject.opened(None, (), (_ABSENT,)) as session:
            session.run(subject.feeds)

    refused(run, SessionError, "a spec of a tensor that the file lacks", _ABSENT.name)


def refuses_wrong_feeds(subject: RuntimeSubject) -> None:
    """A missing, unknown or misspelt input, another shape or dtype: each is a ``SpecMismatch``, and the session goes on."""
    name, value = next(iter(subject.feeds.items()))
    other = np.float64 if value.dtype != np.float64 else np.float32
    wrong: dict[str, dict[str, Any]] = {
        "no inputs": {},
        "a missing input": {key: feed for key, feed in subject.feeds.items() if key != name},
        "an unknown input": {**subject.feeds, "more": value},
        "a misspelt input": {(key if key != name else f"{key}x"): feed for key, feed in subject.feeds.items()},
        "one axis fewer": {**subject.feeds, name: value[0]},
        "twice as many images": {**subject.feeds, name: np.concatenate([value, value])},
        "another dtype": {**subject.feeds, name: value.astype(other)},
    }
    with subject.opened() as session:
        good = session.run(subject.feeds)
        for what, feeds in wrong.items():
            refused(partial(session.run, feeds), SpecMismatch, what)
        subject.same(session.run(subject.feeds), good, "after wrong feeds")


def takes_scattered_feeds(subject: RuntimeSubject) -> None:
    """An input need not lie in one piece of memory."""
    name, value = next(iter(subject.feeds.items()))
    scattered = np.zeros((*value.shape[:-1], 2 * value.shape[-1]), value.dtype)
    scattered[..., ::2] = value
    with subject.opened() as session:
        good = session.run(subject.feeds)
        subject.same(session.run({**subject.feeds, name: scattered[..., ::2]}), good, "with scattered feeds")


def closes_twice(subject: RuntimeSubject) -> None:
    """A closed session says so when it is run, and may be closed again."""
    with subject.opened() as session:
        session.close()
        session.close()
        refused(lambda: session.run(subject.feeds), SessionError, "a run of a closed session", "closed")


def refuses_damaged_files(subject: RuntimeSubject) -> None:
    """A file that is cut, empty, an image, zeros or not there is a ``SessionError`` that names it and the next step."""
    whole = subject.model.read_bytes()
    damages = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "image": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8,
        "zeros": bytes(4096),
        "absent": None,
    }
    with tempfile.TemporaryDirectory() as folder:
        for what, content in damages.items():
            bad = Path(folder) / f"{what}{subject.model.suffix}"
            if content is not None:
                bad.write_bytes(content)
            said = refused(partial(_open, subject, bad), SessionError, f"a file that is {what}", bad.name)
            expect(said.hint, f"a file that is {what}: the error has no next step (hint).")


def refuses_an_unknown_device(subject: RuntimeSubject) -> None:
    """A device that nobody knows is a ``DeviceError`` with a next step; it is never replaced by another one."""
    other = subject.with_options(device=_NOBODY)
    error = refused(lambda: _open(other, subject.model), DeviceError, f"device='{_NOBODY}'", _NOBODY)
    expect(error.hint, "the error has no next step (hint).")


def gives_the_same_with_any_threads(subject: RuntimeSubject) -> None:
    """The number of threads changes nothing about the answer."""
    with subject.opened() as session:
        good = session.run(subject.feeds)
    for threads in (1, 2):
        with subject.with_options(threads=threads).opened() as session:
            subject.same(session.run(subject.feeds), good, f"with {threads} threads")


def runs_in_several_threads(subject: RuntimeSubject) -> None:
    """Two threads may share a session, also one with two lanes; each gets its own answer."""
    for lanes in (1, 2):
        with subject.with_options(lanes=lanes).opened() as session:
            works = {
                f"thread {number} of a session with lanes={lanes}": _worker(subject, session, feeds)
                for number, feeds in enumerate((dict(subject.feeds), _others(subject)))
            }
            in_threads(works, subject.deadline_s)


def runs_beside_another_session(subject: RuntimeSubject) -> None:
    """Two sessions run at the same time, and one goes on when the other is closed."""
    with subject.opened() as first, subject.opened() as second:
        works = {
            "one session": _worker(subject, first, dict(subject.feeds)),
            "another": _worker(subject, second, _others(subject)),
        }
        in_threads(works, subject.deadline_s)
        good = second.run(subject.feeds)
        first.close()
        subject.same(second.run(subject.feeds), good, "after another session was closed")


def is_closed_while_it_runs(subject: RuntimeSubject) -> None:
    """Two threads close a session that others run: nobody waits for ever, and what fails is a ``SessionError``."""
    for lanes in (1, 2):
        with subject.with_options(lanes=lanes).opened() as session:
            session.run(subject.feeds)
            is_closed = threading.Event()

            def run(session: Session = session, is_closed: threading.Event = is_closed) -> None:
                with contextlib.suppress(SessionError):
                    while not is_closed.is_set():
                        session.run(subject.feeds)

            def close(session: Session = session, is_closed: threading.Event = is_closed) -> None:
                session.close()
                is_closed.set()

            works: dict[str, Callable[[], None]] = {f"runner {number}": run for number in range(3)}
            in_threads({**works, "one closer": close, "another closer": close}, subject.deadline_s)


def golden_vectors(subject: RuntimeSubject) -> None:
    """Every variant of the bundle that it runs computes what it did where the bundle was made."""
    expect(subject.bundle is not None, "no bundle is given.")
    bundle = Bundle.open(subject.bundle or "")
    variants = [variant for variant in bundle.variants if variant.format in subject.adapter.formats]
    expect(variants, f"{bundle.path.name} has no variant of the formats {subject.adapter.formats}.")
    for variant in variants:
        verdict = verify_variant(bundle, variant, subject.runtime, subject.options)
        expect(verdict.status == "ok", f"{variant.name}: {verdict.status}: {verdict.reason}")


RUNTIME_CHECKS: Mapping[str, Callable[[RuntimeSubject], None]] = MappingProxyType(
    {
        check.__name__: check
        for check in (
            declares_what_it_runs,
            says_what_it_takes_and_gives,
            gives_outputs_by_name,
            gives_the_same_twice,
            keeps_results,
            keeps_no_inputs,
            keeps_given_specs,
            refuses_a_spec_of_no_tensor,
            refuses_wrong_feeds,
            takes_scattered_feeds,
            closes_twice,
            refuses_damaged_files,
            refuses_an_unknown_device,
            gives_the_same_with_any_threads,
            runs_in_several_threads,
            runs_beside_another_session,
            is_closed_while_it_runs,
            golden_vectors,
        )
    }
)
"""Every check by its name: a function of a ``RuntimeSubject`` that raises ``ContractBroken``."""


def _open(subject: RuntimeSubject, model: Path) -> None:
    with subject.opened(model):
        pass


def _fits(value: Array, spec: TensorSpec) -> bool:
    sizes = zip(value.shape, spec.shape, strict=False)
    same_shape = value.ndim == len(spec.shape) and all(wanted in (-1, size) for size, wanted in sizes)
    return same_shape and value.dtype == np.dtype(spec.dtype)


def _are_equal(before: Mapping[str, Array], now: Mapping[str, Array]) -> bool:
    return all(np.array_equal(value, now[name], equal_nan=value.dtype.kind == "f") for name, value in before.items())


def _others(subject: RuntimeSubject) -> dict[str, Array]:
    """Other inputs than the feeds: the first one backwards."""
    name, value = next(iter(subject.feeds.items()))
    turned = np.ascontiguousarray(value.reshape(-1)[::-1]).reshape(value.shape)
    return {**subject.feeds, name: turned // 2 if value.dtype.kind in "iu" else turned / 2}


def _with_role(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(name=spec.name, role="mine", shape=spec.shape, dtype=spec.dtype)


def _worker(subject: RuntimeSubject, session: Session, feeds: Mapping[str, Array]) -> Callable[[], None]:
    """Runs a session many times, and compares each answer with the one that it gives alone."""
    alone = session.run(feeds)

    def work() -> None:
        for _ in range(_ROUNDS):
            subject.same(session.run(feeds), alone, "beside others")

    return work
