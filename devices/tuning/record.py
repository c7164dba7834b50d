"""What tuning found, kept on the device: ``~/.cache/edgecv/tune/FINGERPRINT/NAME-HASH.json``. Nothing is written into a bundle.

A record counts only for the device, the bundle, the versions and the power mode that it was measured with.
"""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

import msgspec

from edgecv._internal.atomic import new_file
from edgecv._internal.bounded import read_bounded
from edgecv._internal.printable import printable
from edgecv.bundles.bundle import Bundle
from edgecv.devices.tuning.cells import Cell, CellResult, winner_of
from edgecv.devices.tuning.machine import Machine
from edgecv.errors import EdgeCVError
from edgecv.runtimes.cache_folder import cache_folder
from edgecv.version import __version__

SCHEMA = 1
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_HASH = 16  # characters of a hash in a name: enough to tell bundles apart

log = logging.getLogger("edgecv.tune")


class TuneKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a record was measured with; where one of these differs, it says nothing."""

    fingerprint: str  # of the device
    bundle: str  # sha256 of what the manifest says, hashes of all files included
    versions: dict[str, str]  # EdgeCV and the installed runtimes
    power_mode: str  # empty where there are none
    usable_cpus: int  # a container may have fewer than its host


class TuneRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tuning of a bundle."""

    schema: int
    name: str  # of the bundle
    key: TuneKey
    measured_at: str  # ISO 8601, UTC
    elapsed_s: float
    budget_s: float
    results: tuple[CellResult, ...]  # every cell, shape by shape, the best of each first

    @property
    def best(self) -> Cell | None:
        """The cell that won, of the model's own input shape; ``None`` where none could be measured."""
        return winner_of(self.results)


def key_of(bundle: Bundle, machine: Machine) -> TuneKey:
    """The key of a bundle on a machine, as both are now."""
    return TuneKey(
        fingerprint=machine.fingerprint,
        bundle=bundle_hash(bundle),
        versions={"edgecv": __version__, **machine.runtimes},
        power_mode=machine.power_mode,
        usable_cpus=machine.usable_cpus,
    )


def bundle_hash(bundle: Bundle) -> str:
    """sha256 of what the manifest says, which holds the hash of every file."""
    return hashlib.sha256(msgspec.json.encode(bundle.manifest)).hexdigest()


def record_path(key: TuneKey, name: str) -> Path | None:
    """Where the record of a bundle stands; ``None`` for a user without a home."""
    folder = cache_folder("tune")
    if folder is None:
        return None
    readable = _UNSAFE.sub("_", name)[:80].strip(".") or "bundle"
    return folder / key.fingerprint[:_HASH] / f"{readable}-{key.bundle[:_HASH]}.json"


def read_record(key: TuneKey, name: str) -> TuneRecord | None:
    """The record of a bundle on this device; ``None`` where there is none that counts, and why is logged."""
    path = record_path(key, name)
    if path is None:
        return None
    try:
        record = msgspec.json.decode(read_bounded(path), type=TuneRecord)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read and is ignored: %s.", printable(str(path)), error.strerror or error)
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = printable(str(error))
        log.warning("%s is damaged and is ignored: %s. Run `edgecv tune` again.", printable(str(path)), reason)
        return None
    if record.schema == SCHEMA and record.key == key and record.best is not None:
        return record
    reason = printable(_difference(record, key))
    log.warning("%s is ignored: %s. Run `edgecv tune` again.", printable(str(path)), reason)
    return None


def write_record(record: TuneRecord) -> Path:
    """Keep a record, whole or not at all.

    Raises:
        EdgeCVError: the user has no home, or the folder cannot be written.
    """
    path = record_path(record.key, record.name)
    if path is None:
        raise EdgeCVError("There is no folder to keep the result in.", "Set XDG_CACHE_HOME to one.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    except OSError as error:
        raise EdgeCVError(
            f"The result cannot be kept in {path}: {error.strerror or error}.", "Set XDG_CACHE_HOME to another folder."
        ) from error
    return path


def _difference(record: TuneRecord, key: TuneKey) -> str:
    if record.schema != SCHEMA:
        return f"it has the schema {record.schema}, and this EdgeCV reads {SCHEMA}"
    names = {
        "fingerprint": "it was measured on another device",
        "bundle": "it was measured with another bundle",
        "versions": "other versions of EdgeCV or of the runtimes are installed now",
        "power_mode": f"the power mode was {record.key.power_mode or 'unknown'} and is {key.power_mode or 'unknown'}",
        "usable_cpus": f"{record.key.usable_cpus} CPUs could be used, and now {key.usable_cpus}",
    }
    changed = (
        text for name, text in names.items() if msgspec.to_builtins(record.key)[name] != msgspec.to_builtins(key)[name]
    )
    return next(changed, "it holds no time")
