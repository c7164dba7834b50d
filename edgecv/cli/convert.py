"""``edgecv convert`` makes a bundle from a trained model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgecv._internal.bounded import read_plain_text
from edgecv.bundles.bundle import Bundle
from edgecv.cli.bundle_view import COLUMNS, accelerator_lines, bundle_summary, variant_rows
from edgecv.cli.console import note, print_json, print_table, progress_for, say
from edgecv.cli.for_profile import made_for
from edgecv.cli.options import REPEAT, Json, MaxMegapixels, limit_images
from edgecv.errors import ConfigError, in_one_line
from edgecv.specs import PRECISIONS

if TYPE_CHECKING:
    from edgecv.quantize.record import QuantizationRecord


def convert(
    source: Annotated[Path, typer.Argument(help="Checkpoint (.pt), .onnx, or a name such as resnet18.")],
    int8: Annotated[bool, typer.Option("--int8", help="INT8 beside the fp32 variant; needs --calib.")] = False,
    fp16: Annotated[
        bool, typer.Option("--fp16", help="fp16 beside the fp32 variant; --fp16 --int8 gives both.")
    ] = False,
    fp32: Annotated[
        bool,
        typer.Option(
            "--fp32", help="The fp32 variant (the default). With --keep-going it stays where --fp16 or --int8 fail."
        ),
    ] = False,
    to: Annotated[list[str] | None, typer.Option(help=f"onnx, openvino, tflite or all. {REPEAT}")] = None,
    calib: Annotated[Path | None, typer.Option(help="Images to calibrate with: folder, data.yaml or video.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled images that calibration does not see: judge INT8 by them as well.")
    ] = None,
    max_drop: Annotated[float, typer.Option(help="Points of mAP or top-1 that INT8 may lose on --data.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the split into calibration and held-out images.")] = 0,
    effort: Annotated[
        str, typer.Option(help="Work spent on INT8's accuracy: quick, standard or thorough.")
    ] = "standard",
    recipe: Annotated[
        list[str] | None,
        typer.Option(help="INT8 recipe by name, or recipe.json of a bundle: exactly that; one per format."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help=f"CPU class of INT8 in ONNX: x86-vnni (default), x86, arm64, all; tensorrt; edgetpu. {REPEAT}"
        ),
    ] = None,
    for_profile: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="PROFILE",
            help="Device, in place of --to and --target: raspberry-pi-5, ..., or this. `edgecv devices --profiles` lists them.",
        ),
    ] = None,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Write sensitivity.json: what each layer loses in INT8.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="INT8 must be as near to float as the best recipes come, else exit code 3.")
    ] = False,
    imgsz: Annotated[str | None, typer.Option(help="Input size: 640 or 640x384. Default: the model's own.")] = None,
    fit: Annotated[
        list[str] | None,
        typer.Option(help=f"Variants with an input of a camera's shape as well: 16:9, 4:3, 9:16 ... {REPEAT}"),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images per run, 1 to 64, fixed in the files.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Bundle to write. Default: NAME.ecv here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Run the code in a checkpoint that needs it. Only if you trust it.")
    ] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Write what succeeds when a format or precision fails.")
    ] = False,
    weights: Annotated[Path | None, typer.Option(help="Weights for an architecture given by name.")] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help="Random weights from seed 0.")] = False,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Download torchvision's pretrained weights for it.")
    ] = False,
    mean: Annotated[
        str | None, typer.Option(help="Classifier .onnx: mean of each channel, such as 0.485,0.456,0.406.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="Classifier .onnx: deviation of each channel, such as 0.229,0.224,0.225.")
    ] = None,
    color: Annotated[str | None, typer.Option(help="Classifier .onnx: order of its channels, rgb or bgr.")] = None,
    resize: Annotated[str | None, typer.Option(help="Classifier .onnx: stretch, letterbox or crop.")] = None,
    activation: Annotated[
        str, typer.Option(help="Classifier .onnx that ends in plain scores: softmax, sigmoid or none.")
    ] = "",
    labels: Annotated[Path | None, typer.Option(help="File with one label per line.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the steps without running them.")] = False,
    max_megapixels: MaxMegapixels = None,
    json: Json = False,
) -> None:
    """Convert a model to a bundle with proven accuracy. INT8 that fails the accuracy gate is not written (exit code 3)."""
    from edgecv.converters.convert import convert as convert_model
    from edgecv.converters.explain import steps
    from edgecv.converters.request import Int8Options, request_of
    from edgecv.converters.source import SourceOptions
    from edgecv.quantize.recipes import DEFAULT_CPU_CLASS

    limit_images(max_megapixels)
    asked = {"fp32": fp32, "fp16": fp16, "int8": int8}
    precision = [name for name in PRECISIONS if asked[name]] or ["fp32"]
    chosen = made_for(for_profile, to or (), target or (), int8=int8)
    options = SourceOptions(
        size_wh=parse_size(imgsz),
        trust_pickle=trust_pickle,
        weights=weights,
        random_weights=random_weights,
        pretrained=pretrained,
        preprocess=_preprocess(mean=mean, std=std, color=color, resize=resize),
        labels=_labels(labels),
        activation=activation,  # type: ignore[arg-type]  # checked with the other options
        batch=batch,
    )
    int8_options = Int8Options(
        recipes=recipe or (),
        cpu_class=chosen.cpu_classes or DEFAULT_CPU_CLASS,
        data=data,
        max_drop=max_drop,
        seed=seed,
        effort=effort,  # type: ignore[arg-type]  # checked with the other options
        analyze=analyze,
        strict=strict,
        by_speed=chosen.by_speed,
    )
    if chosen.said:
        note(chosen.said)
    if explain:
        request = request_of(source, chosen.formats, precision, options, int8_options, fit or ())
        for number, step in enumerate(steps(request), 1):
            say(f"{number}. {step}")
        return
    with progress_for(json) as progress:
        bundle = convert_model(
            source,
            formats=chosen.formats,
            precision=precision,
            calibration=calib,
            out=out,
            force=force,
            keep_going=keep_going,
            options=options,
            int8=int8_options,
            fit=fit or (),
            progress=progress,
        )
    for failure in bundle.failures:
        note(in_one_line(str(failure), failure.hint))
    if json:
        failures = [asdict(failure) for failure in bundle.failures]
        print_json({**bundle_summary(bundle), **_quantization_summary(bundle), "failures": failures})
    else:
        _show(bundle)
        if analyze:
            _show_sensitivity(bundle)


def _preprocess(**said: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    for name in ("mean", "std"):
        if name in found:
            try:
                found[name] = tuple(float(part) for part in found[name].split(","))
            except ValueError as error:
                raise ConfigError(
                    f"--{name} '{found[name]}' is not three numbers.", f"Example: --{name} 0.5,0.5,0.5"
                ) from error
    return found


def _labels(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = (line.strip(" \t\r") for line in read_plain_text(path).split("\n"))  # other blanks are part of a name
        return tuple(line for line in lines if line)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Give a text file with one label per line.") from error


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``640`` or ``640x384`` as width and height. Raises ``ConfigError``: it is neither."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise ConfigError(f"'{text}' is not an input size.", "Use --imgsz 640 or --imgsz 640x384.")
    return int(parts[0]), int(parts[-1])


def _show_sensitivity(bundle: Bundle) -> None:
    from edgecv.quantize.sensitivity import COSTED, SENSITIVITY, Sensitivity

    if not any(entry.path == SENSITIVITY for entry in bundle.manifest.extras):
        return  # every INT8 failed, and something else was written
    found = msgspec.json.decode(bundle.read_extra(SENSITIVITY), type=Sensitivity)
    for one in found.variants:
        print_table(
            f"{one.variant} ({one.recipe}): the {min(COSTED, len(one.layers))} of {len(one.layers)} layers that lose most",
            ("layer", "signal to noise", "cost of leaving it float"),
            [
                [layer.name, f"{layer.sqnr_db:.1f} dB", "-" if (ms := layer.float_cost_ms) is None else f"{ms:+.2f} ms"]
                for layer in one.layers[:COSTED]
            ],
        )
    if not found.variants:
        note("No variant has layers that can be compared with those of the float model.")


def _record_of(bundle: Bundle) -> QuantizationRecord | None:
    from edgecv.quantize.record import QUANTIZATION, parse_record

    if not any(entry.path == QUANTIZATION for entry in bundle.manifest.extras):
        return None
    return parse_record(bundle.read_extra(QUANTIZATION), bundle.path / QUANTIZATION)


def _quantization_summary(bundle: Bundle) -> dict[str, object]:
    """What INT8 has to say beyond the variants, for ``--json``."""
    from edgecv.quantize.record import REPORT

    record = _record_of(bundle)
    if record is None:
        return {}
    return {
        "warnings": list(record.calibration.warnings),
        "threshold": msgspec.to_builtins(record.threshold),
        "report": str(bundle.path / REPORT),
    }


def _show_quantization(bundle: Bundle) -> None:
    from edgecv.quantize.record import REPORT

    record = _record_of(bundle)
    if record is None:
        return
    for warning in record.calibration.warnings:
        note(f"Calibration images: {warning}")
    if record.threshold is not None and record.threshold.after != record.threshold.before:
        note(f"Confidence {record.threshold.before:g} -> {record.threshold.after:g}. {record.threshold.reason}")
    say(f"What was tried and what it gave: {bundle.path / REPORT}")


def _show(bundle: Bundle) -> None:
    print_table(f"{bundle.path}", COLUMNS, variant_rows(bundle))
    images = bundle.manifest.calibration
    if images and any(variant.recipe for variant in bundle.variants):
        say(
            f"Agreement with the float model on {images.held_out} images that calibration did not see"
            f" (calibrated on {images.images - images.held_out})."
        )
    _show_quantization(bundle)
    for line in accelerator_lines(bundle):
        say(line)
    for assumption in bundle.manifest.assumptions:
        note(f"Assumed, since the source does not say: {assumption}")
    if bundle.manifest.licence.startswith("AGPL"):
        note(f"The weights are under {bundle.manifest.licence}: see docs/licences.md before you ship them.")
    prompted = bundle.manifest.decode.task == "promptable-segment"
    command = f"predict {bundle.path} IMAGE --point X,Y" if prompted else f"run {bundle.path} --source 0"
    say(f"Run it:  edgecv {command}")
