"""ONNX Runtime's execution providers: which one a device stands for, their options, and whether a session really uses them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from edgecv.errors import ConfigError, DeviceError
from edgecv.runtimes.accelerators.nvidia import linked, missing_libraries

PROVIDERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cpu": ("CPUExecutionProvider",),
        "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
        "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
    }
)
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
PROVIDER_LIBRARIES: Mapping[str, str] = MappingProxyType(
    {
        "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
        "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
    }
)
_TAKES_NONE = "CPUExecutionProvider"
WORKSPACE = "trt_max_workspace_size"
# Where engines lie is ours to say: they are found again by it.
_OURS = frozenset(
    {
        *("trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix"),
        *("trt_timing_cache_enable", "trt_timing_cache_path"),
        *("trt_dump_ep_context_model", "trt_ep_context_file_path", "trt_ep_context_embed_mode"),
    }
)
_OTHERWISE = "or use device='cpu'."
_BY_BOARD = "`edgecv doctor` names the package for this board"


def check_available(device: str, there: Sequence[str]) -> tuple[str, ...]:
    """The providers of a device, the first choice first, of those that the installed onnxruntime was built with.

    Raises:
        DeviceError: nobody knows the device, or this build of onnxruntime lacks its provider.
    """
    if device not in PROVIDERS:
        raise DeviceError(f"onnxruntime has no device '{device}' here.", f"Known: {', '.join(PROVIDERS)}.")
    wanted = PROVIDERS[device]
    if wanted[0] not in there:
        raise DeviceError(
            f"The installed onnxruntime was built without {wanted[0]}: it has {', '.join(there)}, and "
            f"{PROVIDER_LIBRARIES.get(wanted[0], 'its library')} is missing.",
            f"Install the package for {device}: pip uninstall onnxruntime && pip install onnxruntime-gpu ({_BY_BOARD}), "
            f"{_OTHERWISE}",
        )
    return tuple(name for name in wanted if name in there)


def given_options(extra: Mapping[str, Any], device: str) -> dict[str, dict[str, str]]:
    """``extra["provider_options"]``: what the caller sets himself, by provider and name.

    Raises:
        ConfigError: it is no mapping of mappings, names a provider that the device does not use, sets what is EdgeCV's, or an
            option has a value that it cannot have.
    """
    given = extra.get("provider_options", {})
    if not isinstance(given, Mapping) or not all(isinstance(options, Mapping) for options in given.values()):
        raise ConfigError(
            "provider_options holds options by provider.",
            'For example: {"CUDAExecutionProvider": {"device_id": 1}}.',
        )
    known = [name for name in PROVIDERS.get(device, ()) if name != _TAKES_NONE]
    strange = next((name for name in given if name not in known), None)
    if strange is not None:
        takes = (
            f"It uses {', '.join(known)}."
            if known
            else "The processor takes no options; extra['config'] is for sessions."
        )
        raise ConfigError(f"provider_options names {strange}, which device='{device}' gives no options to.", takes)
    taken = sorted({str(name) for options in given.values() for name in options} & _OURS)
    if taken:
        raise ConfigError(
            f"{taken[0]} is EdgeCV's own: where engines lie follows from what they were built for.",
            "Choose the folder with cache_dir, or EDGECV_CACHE.",
        )
    _check_values(given)
    found = {name: {str(key): str(value) for key, value in options.items()} for name, options in given.items()}
    return _on_one_gpu(found, known)


def _check_values(given: Mapping[str, Mapping[str, Any]]) -> None:
    for provider, options in given.items():
        for name, value in options.items():
            if not isinstance(value, str | int | float):
                raise ConfigError(
                    f"provider_options: {name} of {provider} is {value!r}.",
                    "An option is a text, a number, or true or false.",
                )


def _on_one_gpu(given: dict[str, dict[str, str]], known: Sequence[str]) -> dict[str, dict[str, str]]:
    """All providers of a session compute on one GPU: the number that one of them is given is that of the others."""
    numbers = {options["device_id"] for options in given.values() if "device_id" in options}
    wrong = next((number for number in numbers if not (number.isascii() and number.isdecimal())), None)
    if wrong is not None:
        raise ConfigError(f"provider_options: device_id is {wrong!r}.", "It is the number of a GPU, from 0 on.")
    if len(numbers) > 1:
        raise ConfigError(
            f"provider_options name several GPUs: device_id is {' and '.join(sorted(numbers))}.",
            "All providers of a session compute on one.",
        )
    return {name: {**given.get(name, {}), "device_id": min(numbers)} for name in known} if numbers else given


def tensorrt_options(precision: str, version: str, workspace_bytes: int) -> dict[str, str]:
    """What TensorRT is asked for beside its folders (devices.md, section 2.3).

    Args:
        precision: Of the variant. float32 files stay in float32; in INT8 files the layers without scales are float16.
        version: Of TensorRT. From 11 on the types stand in the file alone.
        workspace_bytes: The most memory that building may take for its trials.
    """
    options = {"trt_builder_optimization_level": "3", WORKSPACE: str(workspace_bytes)}
    major = int(version.partition(".")[0] or 0)
    if major < 11:
        options["trt_fp16_enable"] = str(precision in ("fp16", "int8"))
        options["trt_int8_enable"] = str(precision == "int8")
    return options


def cache_options(engines: Path, timing: Path) -> dict[str, str]:
    """Where TensorRT reads and writes engines, and the times of kernels that make the next build quicker."""
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(timing),
    }


def placement(subgraphs: Iterable[Any]) -> dict[str, float]:
    """The share of nodes that each provider computes, from ``get_provider_graph_assignment_info``; the largest first."""
    counts: Counter[str] = Counter()
    for subgraph in subgraphs:
        counts[subgraph.ep_name] += len(subgraph.get_nodes())
    total = sum(counts.values())
    return {name: count / total for name, count in counts.most_common() if total}


def placement_of(session: Any) -> dict[str, float]:
    """The same of a session; empty where this release of onnxruntime, or the session, does not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):  # onnxruntime 1.23 for Python 3.10 does not
        return {}
    return placement(session.get_provider_graph_assignment_info())


def check_used(wanted: str, started: Sequence[str], share: Mapping[str, float], package: Path) -> None:
    """Refuse a session that does not compute where it was asked to.

    Args:
        wanted: The provider that was asked for.
        started: The providers that the session has.
        share: As ``placement_of`` gives it.
        package: Folder of the libraries of onnxruntime.

    Raises:
        DeviceError: the provider did not start, or computes no node.
    """
    if started[0] != wanted:
        raise _not_started(wanted, package)
    if share and not share.get(wanted):
        held = ", ".join(f"{name} {part:.0%}" for name, part in share.items())
        raise DeviceError(
            f"{wanted} started, but takes no node of this model: {held}.",
            f"Convert the model for it ({_BY_BOARD}; docs/devices.md says which variants fit), {_OTHERWISE}",
        )


def check_linked(wanted: str, package: Path) -> None:
    """Raise ``DeviceError`` where the loader does not find what a provider's library needs; arguments as in ``check_used``."""
    library = package / PROVIDER_LIBRARIES.get(wanted, "")
    missing = missing_libraries(linked(library)) if library.is_file() else ()
    if missing:
        named = ", ".join(missing)
        raise DeviceError(
            f"onnxruntime could not start {wanted}: {named} {'is' if len(missing) == 1 else 'are'} missing.",
            f"Install what brings {missing[0]} in the release that this onnxruntime was built for "
            f"({_BY_BOARD}), {_OTHERWISE}",
        )


def _not_started(wanted: str, package: Path) -> DeviceError:
    check_linked(wanted, package)
    return DeviceError(
        f"onnxruntime has {wanted} but could not start it on this machine: its libraries are there.",
        f"Look whether the driver finds the GPU: nvidia-smi, on a Jetson tegrastats; {_OTHERWISE}",
    )
