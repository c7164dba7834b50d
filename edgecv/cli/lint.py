"""``edgecv info --lint TARGET`` checks ONNX files against the rules of an accelerator."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgecv._internal.printable import printable
from edgecv.bundles.bundle import Bundle
from edgecv.bundles.cpu_classes import suits_device
from edgecv.cli.console import print_json, say
from edgecv.errors import ConfigError

if TYPE_CHECKING:
    from edgecv.quantize.lint.rule import Finding


def lint(path: Path, target: str, json: bool) -> None:
    """Say what in an ``.onnx`` file, or in the ONNX variants that a bundle has for ``target``, goes against its rules.

    Raises:
        ConfigError: there are no rules for the target, or nothing to check.
        Exit: a rule fails (1); what only warns does not count.
    """
    from edgecv.quantize.lint.lint import check_target, lint_file

    check_target(target)
    found = {name: lint_file(file, target) for name, file in _files(path, target).items()}
    count = sum(len(findings) for findings in found.values())
    failed = sum(one.level == "fail" for findings in found.values() for one in findings)
    if json:
        files = {name: [asdict(finding) for finding in findings] for name, findings in found.items()}
        print_json({"target": target, "findings": count, "failed": failed, "files": files})
    else:
        for name, findings in found.items():
            _show(name, findings)
        say(
            f"{len(found)} file{'s' * (len(found) != 1)} checked for {target}: {count or 'no'} finding{'s' * (count != 1)}."
        )
    if failed:
        raise typer.Exit(1)


def _files(path: Path, target: str) -> dict[str, Path]:
    """What to check, by name: the file itself, or what would run on ``target`` of a bundle."""
    if path.is_file():
        return {path.name: path}
    bundle = Bundle.open(path)
    onnx = [variant for variant in bundle.variants if variant.format == "onnx"]
    if not onnx:
        raise ConfigError(f"{path} has no ONNX variant to check.", "Convert the model with --to onnx.")
    fitting = [variant for variant in onnx if suits_device(variant.cpu_class, target)]
    if not any(variant.precision == "int8" for variant in fitting):
        fitting = onnx  # its INT8 is for CPUs: the findings say why TensorRT is not given it
    return {
        variant.name if part == "main" else f"{variant.name}/{part}": bundle.path / files.files[0].path
        for variant in fitting
        for part, files in variant.models.items()
    }


def _show(name: str, findings: tuple[Finding, ...]) -> None:
    for one in findings:
        say(f"{one.level:6}{one.rule:17} {printable(f'{name}, {one.node}: {one.what}')}")
        say(f"{'':6}why  {one.why}")
        say(f"{'':6}fix  {one.fix}")
