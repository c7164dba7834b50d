"""Every error EdgeCV raises on purpose.

EdgeCVError(message, hint="")
├── ConfigError                      exit 2: the caller asked for something that does not exist or contradicts itself
├── PluginError
│   ├── UnknownPlugin                exit 2: no such runtime, source, sink, ...
│   └── MissingDependency            a package of an extra is not installed; the hint holds the pip line
├── ModelError
│   ├── BundleError                  a bundle is damaged, newer than this EdgeCV or leads outside its folder
│   ├── SpecMismatch                 a model and what is said about it (or fed to it) do not fit
│   └── SessionError                 a runtime refused to load or run a model
├── ConversionError
│   ├── UnsupportedSource            this checkpoint or graph cannot be converted
│   └── ParityError                  an export computes something else than its source
├── QuantizationError
│   ├── CalibrationError             the calibration images prove nothing
│   └── AccuracyGateError            exit 3: no INT8 recipe passed; carries the report
├── SourceError(code)                a camera, stream or file: auth, dns, refused, timeout, codec, stale, eof, missing,
│                                    memory
├── SinkError                        a result could not be written where it was asked for
├── SyncError
│   ├── OutboxFull
│   ├── OutboxCorrupt
│   ├── OutboxLocked                 another process owns this outbox
│   └── TransportError(retryable)
├── DeviceError
└── RegressionError                  exit 4: slower or less accurate than the baseline

Exit codes not named above are 1. The command line prints message and hint, never a traceback (``--debug`` shows it).
"""

from __future__ import annotations

from typing import ClassVar


class EdgeCVError(Exception):
    """Base of all errors: what happened, and in ``hint`` what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(EdgeCVError):
    """The caller asked for something that does not exist or contradicts itself."""

    exit_code = 2


class PluginError(EdgeCVError):
    """A named runtime, source, sink ... could not be provided."""


class UnknownPlugin(PluginError):
    """No plug-in of that kind has that name."""

    exit_code = 2


class MissingDependency(PluginError):
    """A package that belongs to an extra is not installed."""


class ModelError(EdgeCVError):
    """A model cannot be used."""


class BundleError(ModelError):
    """A bundle is damaged, newer than this EdgeCV or leads outside its folder."""


class SpecMismatch(ModelError):
    """A model and what is said about it, or fed to it, do not fit."""


class SessionError(ModelError):
    """A runtime refused to load or to run a model."""


class ConversionError(EdgeCVError):
    """A conversion failed; nothing was written."""


class UnsupportedSource(ConversionError):
    """This checkpoint or graph cannot be converted."""


class ParityError(ConversionError):
    """An export computes something else than its source."""


class QuantizationError(EdgeCVError):
    """Quantization failed; nothing was written."""


class CalibrationError(QuantizationError):
    """The calibration images are too few, unreadable, all alike, or show the model nothing."""


class AccuracyGateError(QuantizationError):
    """No INT8 artefact passed its accuracy gate.

    ``report`` is the ``edgecv.quantize.gate.accuracy_gate.GateReport`` of the last attempt (``object`` here: the
    core knows no quantizer).
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "", report: object = None) -> None:
        super().__init__(message, hint)
        self.report = report


class SourceError(EdgeCVError):
    """A camera, stream or file gives no frames.

    ``code`` is one of ``auth dns refused timeout codec stale eof missing memory``.
    """

    def __init__(self, message: str, hint: str = "", code: str = "missing") -> None:
        super().__init__(message, hint)
        self.code = code


class SinkError(EdgeCVError):
    """A result could not be written where it was asked for."""


class SyncError(EdgeCVError):
    """Results cannot be kept for, or brought to, the cloud."""


class OutboxFull(SyncError):
    """An event was refused and counted, because the outbox is full or closed; raised by ``Outbox.put``, never by the sink."""


class OutboxCorrupt(SyncError):
    """The outbox file is damaged."""


class OutboxLocked(SyncError):
    """Another process owns this outbox."""


class TransportError(SyncError):
    """The broker refused or cannot be reached; ``retryable`` says whether trying again can help."""

    def __init__(self, message: str, hint: str = "", retryable: bool = True) -> None:
        super().__init__(message, hint)
        self.retryable = retryable


class DeviceError(EdgeCVError):
    """The device lacks something, or its state cannot be read."""


class RegressionError(EdgeCVError):
    """Slower or less accurate than the baseline allows."""

    exit_code = 4


def in_one_line(message: str, hint: str) -> str:
    """What happened and the next step as sentences, for a place that has one line for both."""
    end = "" if not message or message.endswith((".", "!", "?", ":")) else "."
    return f"{message}{end} {hint}".strip()
