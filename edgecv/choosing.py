"""Which variant of a bundle runs on this machine, on which runtime, and how its sessions are opened."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import msgspec

from edgecv import registry
from edgecv._internal.strict import check_number
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.cpu_classes import ACCELERATORS, suits_device
from edgecv.bundles.manifest import Variant
from edgecv.errors import ConfigError, DeviceError, MissingDependency, ModelError
from edgecv.protocols import RuntimeAdapter, SaysPlacement, SaysPrecision, Session
from edgecv.runtimes.accelerators import DEVICES, knows
from edgecv.runtimes.adapter import open_session
from edgecv.specs import RuntimeOptions
from edgecv.vision.input_shapes import Size, best_shape

_MOST_LANES = 8
MOST_THREADS = 1024


class LoadOptions(TypedDict, total=False):
    """The options of ``edgecv.load``, by keyword; see there."""

    runtime: str
    precision: str
    threads: int
    device: str
    variant: str
    lanes: int
    cache_dir: str | Path
    extra: Mapping[str, Any]


def runtime_options(**given: Any) -> RuntimeOptions:
    """Checked options; fields as in ``RuntimeOptions``.

    Raises:
        ConfigError: a value is out of its range.
        UnknownPlugin: no runtime has that name.
    """
    try:
        options = msgspec.convert({**given, "cache_dir": str(given.get("cache_dir", ""))}, RuntimeOptions)
    except msgspec.ValidationError as error:
        hint = "precision: auto, fp32, fp16, int8 or bf16." if "$.precision" in str(error) else ""
        raise ConfigError(f"A runtime option is wrong: {error}.", hint) from error
    options = msgspec.structs.replace(options, device=options.device.lower())
    check_number("lanes", options.lanes, 1, _MOST_LANES, whole=True, hint="2 for files and many cameras.")
    check_number("threads", options.threads, 0, MOST_THREADS, whole=True, hint="0: as many as there are CPUs to use.")
    if options.runtime != "auto":
        registry.place("runtimes", options.runtime)  # names the known ones when it is misspelt
    return options


def check_exists(path: Path) -> None:
    """Raise ``ModelError`` unless there is something at ``path``."""
    if not path.exists():
        raise ModelError(f"{path} does not exist.", "Make a bundle with: edgecv convert MODEL --int8 --calib IMAGES")


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Which variant runs on which runtime here, with how many threads."""

    variant: Variant
    runtime: str
    threads: int  # 0 lets the runtime choose
    cores: tuple[int, ...] = ()  # that the session computes on; empty for any


class Adviser(Protocol):
    """Knows this device: what `edgecv tune` measured here, and which order suits it where nothing was measured."""

    def __call__(self, bundle: Bundle, pairs: Sequence[tuple[Variant, str]], options: RuntimeOptions) -> Advice:
        """One of the pairs, of which there is at least one; ``options.threads`` wins where it is given."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What is to be loaded."""

    bundle: Bundle
    variant: Variant
    runtime: str
    options: RuntimeOptions  # with the threads that were chosen


def choose(path: Path, options: RuntimeOptions, fit: Size | None = None) -> Chosen:
    """Open a bundle and choose the variant that runs best here, with runtime and threads for it.

    ``fit`` is the size of the images: of the input sizes that the bundle has, the one is taken that wastes least on them; without
    it the model's own. What was built for another CPU class or accelerator is taken on a CPU only where nothing else fits: it is
    slow here, or saturates. TensorRT and an Edge TPU take nothing else than what suits them, unless the variant is named. Times
    that the bundle holds decide nothing: another machine measured them.

    Raises:
        ModelError: there is nothing at ``path``.
        BundleError: the bundle is damaged.
        ConfigError: no variant has that runtime and precision, or none of them is for that accelerator.
        MissingDependency: one has, but its runtime is not installed.
    """
    check_exists(path)
    bundle = Bundle.open(path)
    shapes = shapes_in(bundle, options)
    return choose_size(bundle, options, best_shape(fit, shapes) if fit else shapes[0])


def shapes_in(bundle: Bundle, options: RuntimeOptions) -> tuple[Size, ...]:
    """The input sizes that a bundle has with these options on this machine, the model's own first; raises as ``choose``."""
    return tuple(dict.fromkeys(variant.size_wh for variant, _ in _suitable(bundle, options)))


def choose_size(bundle: Bundle, options: RuntimeOptions, size_wh: Size) -> Chosen:
    """As ``choose``, among the variants with one of ``shapes_in``."""
    pairs = [pair for pair in _suitable(bundle, options) if pair[0].size_wh == size_wh]
    advice = _advice(bundle, pairs, options)
    return Chosen(
        bundle=bundle,
        variant=advice.variant,
        runtime=advice.runtime,
        options=msgspec.structs.replace(options, threads=advice.threads, cores=advice.cores),
    )


def _suitable(bundle: Bundle, options: RuntimeOptions) -> list[tuple[Variant, str]]:
    pairs = runnable(bundle, options)
    fitting = [pair for pair in pairs if suits_device(pair[0].cpu_class, options.device)]
    if not fitting and not options.variant and options.device in ACCELERATORS:
        target = ACCELERATORS[options.device][0]
        precision = "" if options.precision == "auto" else f"{options.precision} "
        there = ", ".join(dict.fromkeys(variant.name for variant, _ in pairs))
        raise ConfigError(
            f"{bundle.path} has no {precision}variant for {options.device}, only {there}.",
            f"Convert the model with --int8 --target {target}.",
        )
    return fitting or pairs


def _advice(bundle: Bundle, pairs: Sequence[tuple[Variant, str]], options: RuntimeOptions) -> Advice:
    if len(pairs) == 1 and options.threads:  # nothing is left to ask, so the device is not looked at
        return Advice(variant=pairs[0][0], runtime=pairs[0][1], threads=options.threads)
    advise: Adviser = registry.resolve("advisers", "device")  # devices stand above this room
    return advise(bundle, pairs, options)


def choose_for_file(path: Path, options: RuntimeOptions) -> str:
    """The runtime that shall run a bare model file.

    Raises:
        ConfigError: no runtime does, or none computes it as asked.
    """
    fitting = [name for name in registry.names("runtimes") if path.suffix in runtime_of(name).suffixes]
    chosen = next((name for name in fitting if options.runtime in ("auto", name)), None)
    if chosen is None:
        raise ConfigError(f"{options.runtime} does not run {path.suffix} files.", f"Use: {', '.join(fitting)}.")
    if options.precision == "bf16" and not runtime_of(chosen).takes_bf16:
        raise ConfigError(f"{chosen} does not compute {path.name} in bfloat16.", "OpenVINO does, from an .xml file.")
    return chosen


def runnable(bundle: Bundle, options: RuntimeOptions) -> list[tuple[Variant, str]]:
    """Every variant that fits the options, each with an installed runtime to run it on.

    Raises:
        ConfigError: no variant has that runtime and precision.
        DeviceError: one has, but its runtime knows no such device.
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
    pairs = _of_device(bundle, pairs, options.device)
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
    installed = [pair for pair in pairs if is_installed(pair[1])]
    if not installed:
        missing = sorted({name for _, name in pairs})
        raise MissingDependency(
            f"No runtime for {bundle.path} is installed ({', '.join(missing)}).",
            f"Install one with: pip install 'edgecv[{runtime_of(missing[0]).extra}]'",
        )
    return installed


def _of_device(bundle: Bundle, pairs: list[tuple[Variant, str]], device: str) -> list[tuple[Variant, str]]:
    """Those whose runtime knows the device; ``DeviceError`` where none does."""
    known = [pair for pair in pairs if knows(pair[1], device)]
    if pairs and not known:
        names = sorted({name for _, runtime in pairs for name in ("cpu", *DEVICES.get(runtime, ()))})
        raise DeviceError(f"Nothing in {bundle.path} that fits computes on '{device}'.", f"Known: {', '.join(names)}.")
    return known


def _has_precision(variant: Variant, runtime: str, options: RuntimeOptions) -> bool:
    if options.precision == "bf16":
        return runtime_of(runtime).takes_bf16 and (variant.precision == "fp32" or options.variant == variant.name)
    return options.precision in ("auto", variant.precision)


def open_parts(bundle: Bundle, variant: Variant, options: RuntimeOptions, runtime: str) -> dict[str, Session]:
    """A session for each model of a variant, by its part: ``main``, or ``encoder`` and ``decoder``.

    Raises:
        BundleError: a file of the variant is missing or changed.
        SessionError: the runtime cannot load it.
    """
    # The precision is the variant's own, which ``auto`` leaves open.
    precision = "bf16" if options.precision == "bf16" else variant.precision
    options = msgspec.structs.replace(options, precision=precision)
    return {part: _open_part(bundle, variant, part, options, runtime) for part in variant.models}


def _open_part(bundle: Bundle, variant: Variant, part: str, options: RuntimeOptions, runtime: str) -> Session:
    files = variant.models[part]
    with bundle.opened_model(variant, part) as model:
        return open_session(runtime, model, options, files.inputs, files.outputs)


def float_precision(session: Session) -> str:
    """In which type a session computes what is not in integers, such as ``float32``; empty where it does not say."""
    return session.float_precision if isinstance(session, SaysPrecision) else ""


def computed_on(session: Session) -> str:
    """On what a session computes, and where the runtime tells it, which share: ``CUDAExecutionProvider 97 %, ...``."""
    share = session.placement if isinstance(session, SaysPlacement) else {}
    return ", ".join(f"{name} {part:.0%}" for name, part in share.items()) or ", ".join(session.providers)


def runtime_of(name: str) -> type[RuntimeAdapter]:
    """The class of a runtime, installed or not.

    Raises:
        UnknownPlugin: no runtime has that name.
    """
    return registry.resolve("runtimes", name)


def runtimes_for(model_format: str) -> list[str]:
    """Names of the runtimes that run a format, installed or not."""
    return [name for name in registry.names("runtimes") if model_format in runtime_of(name).formats]


def file_suffixes() -> set[str]:
    """The suffixes of bare model files that some runtime loads."""
    return {suffix for name in registry.names("runtimes") for suffix in runtime_of(name).suffixes}


def is_installed(runtime: str) -> bool:
    """Whether the package of a runtime is there; it is not imported."""
    return importlib.util.find_spec(runtime_of(runtime).package) is not None
