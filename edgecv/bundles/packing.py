"""A bundle as one file for transfer: the same folder, zipped."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path
from typing import IO

from edgecv._internal.atomic import Kind, check_target, new_file, new_folder
from edgecv._internal.foreign import ZIP_DAMAGE
from edgecv.bundles.bundle import BUNDLE, Bundle, check_inside
from edgecv.bundles.manifest import DO_NOT_USE, MANIFEST, MAX_MANIFEST_BYTES, BundleFile, every_file, parse_manifest
from edgecv.bundles.opened_files import OpenedFile, open_inside
from edgecv.errors import BundleError, ConfigError

_MOST_MEMBERS = 10_000
_MOST_RATIO = 20  # unpacked to packed; of models it is 1 to 4
_RATIO_FREE_BYTES = 64 << 20  # below that it says nothing: a bundle of tests may be all zeros
_SPARE_BYTES = 64 << 20  # of the disk, for everything else
# bzip2 and LZMA are not written by `pack`; LZMA takes as much memory as a file asks for, up to 4 GB.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_CHUNK = 1 << 20


def _no_packed_bundle(path: Path) -> str:
    """What stands at a path, if it is no packed bundle."""
    if path.is_dir():
        return "a folder"
    try:
        with zipfile.ZipFile(path) as archive:
            return "" if MANIFEST in archive.namelist() else f"a zip file without {MANIFEST}"
    except ZIP_DAMAGE:
        return "a file that is no packed bundle"


_PACKED = Kind(name="a packed bundle", other=_no_packed_bundle)


def pack(bundle: str | Path, out: str | Path | None = None, force: bool = False) -> Path:
    """Zip a bundle after checking every file in it.

    Raises:
        BundleError: the bundle is damaged, or changed while it was packed.
        ConfigError: the target exists (without ``force``) or cannot be written.
    """
    opened = Bundle.open(bundle)
    target = Path(out) if out else opened.path.with_name(opened.path.name + ".zip")
    check_target(target, force, _PACKED)
    opened.verify_files()
    entries: dict[str, BundleFile | None] = {entry.path: entry for entry in every_file(opened.manifest)}
    entries[MANIFEST] = None
    try:
        with new_file(target) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(entries):
                with open_inside(opened.path, name) as source:
                    _add(archive, name, source, entries[name])
    except OSError as error:
        raise ConfigError(f"Writing {target} failed: {error.strerror or error}.", "Choose another --out.") from error
    return target


def unpack(archive: str | Path, out: str | Path | None = None, force: bool = False) -> Path:
    """Unzip a packed bundle, checked member by member.

    Only files that ``bundle.json`` lists, in the sizes it states, are written: neither a path that leads outside nor a
    small archive that unpacks to a full disk comes through.

    Raises:
        BundleError: the archive is damaged, does not hold exactly one bundle, or grows beyond what a bundle can.
        ConfigError: the target exists (without ``force``) or cannot be written, or the disk is too full for it.
    """
    archive = Path(archive)
    target = Path(out) if out else archive.with_name(archive.name.removesuffix(".zip"))
    if target == archive:
        raise ConfigError(f"{archive} would be unpacked onto itself.", "Name the target with --out.")
    try:
        with zipfile.ZipFile(archive) as opened, new_folder(target, force, BUNDLE) as work:
            _extract(opened, work, archive)
            Bundle.open(work).verify_files()
    except FileNotFoundError as error:
        raise BundleError(f"{archive} does not exist.", "Pack a bundle first: edgecv pack BUNDLE") from error
    except MemoryError as error:
        raise BundleError(f"{archive} needs more memory than there is.", DO_NOT_USE) from error
    except ZIP_DAMAGE as error:
        raise BundleError(f"{archive} is not a packed bundle: {error}.", "Pack it again: edgecv pack BUNDLE") from error
    return target


def _add(archive: zipfile.ZipFile, name: str, source: OpenedFile, entry: BundleFile | None) -> None:
    """Write a file of the bundle from the descriptor through which it is hashed."""
    info = zipfile.ZipInfo.from_file(source.readable, name)
    info.compress_type = zipfile.ZIP_DEFLATED
    if entry is not None and (source.size != entry.bytes or source.sha256() != entry.sha256):
        raise BundleError(f"{name} changed while it was packed.", "Pack it again.")
    with archive.open(info, "w", force_zip64=source.size >= zipfile.ZIP64_LIMIT // 2) as sink:
        for chunk in source.chunks():
            sink.write(chunk)
    source.check_unchanged()


def _extract(archive: zipfile.ZipFile, work: Path, origin: Path) -> None:
    members = _members(archive, work, str(origin))
    if MANIFEST not in members or members[MANIFEST].file_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{origin} holds no usable {MANIFEST}.", "Pack it again: edgecv pack BUNDLE")
    text = archive.read(MANIFEST)
    manifest = parse_manifest(text, str(origin))
    listed = {MANIFEST: len(text), **{entry.path: entry.bytes for entry in every_file(manifest)}}
    for name, info in members.items():
        if listed.get(name) != info.file_size:
            raise BundleError(f"{origin}: {name!r} is not what {MANIFEST} lists.", "Pack it again.")
    _check_total(sum(info.file_size for info in members.values()), work, origin)
    for name, info in members.items():
        place = work / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, place.open("xb") as sink:
            _copy(source, sink, info.file_size, name)


def _members(archive: zipfile.ZipFile, work: Path, origin: str) -> dict[str, zipfile.ZipInfo]:
    """The files in the archive by name, none of which may lead outside."""
    everything = archive.infolist()
    if len(everything) > _MOST_MEMBERS:
        raise BundleError(f"{origin} holds {len(everything)} files, more than any bundle.", DO_NOT_USE)
    if len({info.filename for info in everything}) != len(everything):
        raise BundleError(f"{origin} holds a name twice.", DO_NOT_USE)
    for info in everything:
        check_inside(work, info.filename.rstrip("/"), origin)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BundleError(f"{origin}: {info.filename!r} is a link.", DO_NOT_USE)
        if info.compress_type not in _METHODS:
            raise BundleError(f"{origin}: {info.filename!r} is packed in a way that is not read.", "Pack it again.")
    return {info.filename: info for info in everything if not info.is_dir()}


def _check_total(total: int, work: Path, origin: Path) -> None:
    """Refuse what would grow beyond what models do, or beyond the disk, before anything is written."""
    packed = origin.stat().st_size
    if total > _RATIO_FREE_BYTES + _MOST_RATIO * packed:
        raise BundleError(
            f"{origin} has {packed / 1e6:.1f} MB and would unpack to {total / 1e6:.0f} MB: more than models do.",
            DO_NOT_USE,
        )
    free = shutil.disk_usage(work).free
    if total + _SPARE_BYTES > free:
        raise ConfigError(
            f"{origin} unpacks to {total / 1e6:.0f} MB, and {work.parent} has {free / 1e6:.0f} MB left.",
            "Free some space, or choose another --out.",
        )


def _copy(source: IO[bytes], sink: IO[bytes], size: int, name: str) -> None:
    """Copy exactly as many bytes as were announced."""
    left = size
    while chunk := source.read(_CHUNK):
        left -= len(chunk)
        if left < 0:
            break
        sink.write(chunk)
    if left:
        raise BundleError(f"{name!r} is not as long as the archive says.", "Pack it again.")
