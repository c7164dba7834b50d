"""A bundle as one file for transfer: the same folder, zipped."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from edgecv.atomic import check_target, new_folder
from edgecv.bundle import MANIFEST, Bundle, check_inside, every_file, parse_manifest
from edgecv.errors import BundleError, ConfigError

MAX_MANIFEST_BYTES = 16 << 20


def pack(bundle: str | Path, out: str | Path | None = None, force: bool = False) -> Path:
    """Zip a bundle after checking every file in it.

    Raises:
        BundleError: the bundle is damaged.
        ConfigError: the target exists (without ``force``) or cannot be written.
    """
    opened = Bundle.open(bundle)
    target = Path(out) if out else opened.path.with_name(opened.path.name + ".zip")
    check_target(target, force)
    opened.verify_files()
    paths = {MANIFEST, *(entry.path for entry in every_file(opened.manifest))}
    work = target.with_name(f".{target.name}.tmp")
    try:
        with zipfile.ZipFile(work, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(paths):
                archive.write(opened.path / path, path)
        work.replace(target)
    except OSError as error:
        raise ConfigError(f"Writing {target} failed: {error.strerror or error}.", "Choose another --out.") from error
    finally:
        work.unlink(missing_ok=True)
    return target


def unpack(archive: str | Path, out: str | Path | None = None, force: bool = False) -> Path:
    """Unzip a packed bundle, checked member by member.

    Only files that ``bundle.json`` lists, in the sizes it states, are written: neither a path that leads outside nor a
    small archive that unpacks to a full disk comes through.

    Raises:
        BundleError: the archive is damaged or does not hold exactly one bundle.
        ConfigError: the target exists (without ``force``) or cannot be written.
    """
    archive = Path(archive)
    target = Path(out) if out else archive.with_name(archive.name.removesuffix(".zip"))
    if target == archive:
        raise ConfigError(f"{archive} would be unpacked onto itself.", "Name the target with --out.")
    try:
        with zipfile.ZipFile(archive) as opened, new_folder(target, force) as work:
            _extract(opened, work, str(archive))
            Bundle.open(work).verify_files()
    except FileNotFoundError as error:
        raise BundleError(f"{archive} does not exist.", "Pack a bundle first: edgecv pack BUNDLE") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        raise BundleError(f"{archive} is not a packed bundle: {error}.", "Pack it again: edgecv pack BUNDLE") from error
    return target


def _extract(archive: zipfile.ZipFile, work: Path, origin: str) -> None:
    everything = archive.infolist()
    members = {info.filename: info for info in everything if not info.is_dir()}
    if len({info.filename for info in everything}) != len(everything):
        raise BundleError(f"{origin} holds a name twice.", "Do not use this bundle.")
    for info in everything:
        check_inside(work, info.filename.rstrip("/"), origin)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BundleError(f"{origin}: {info.filename!r} is a link.", "Do not use this bundle.")
    if MANIFEST not in members or members[MANIFEST].file_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{origin} holds no usable {MANIFEST}.", "Pack it again: edgecv pack BUNDLE")
    text = archive.read(MANIFEST)
    manifest = parse_manifest(text, origin)
    listed = {MANIFEST: len(text), **{entry.path: entry.bytes for entry in every_file(manifest)}}
    for name, info in members.items():
        if listed.get(name) != info.file_size:
            raise BundleError(f"{origin}: {name!r} is not what {MANIFEST} lists.", "Pack it again.")
        place = work / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, place.open("wb") as sink:
            shutil.copyfileobj(source, sink)
