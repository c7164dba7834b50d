"""The child of the fuzzers: ``python -m tests.security.fuzz_bundles KIND SEED SECONDS FOLDER`` gives mutated files to one reader.

Each input stands in ``FOLDER/current`` before it is read, so that what ended the process is known. With a file for ``SECONDS`` it
reads that one alone. Exit codes: 0 all were read or refused, 3 a reader raised what is no ``EdgeCVError``, 4 one took more memory
than ``MOST_MB``; a signal is a crash of a native library.
"""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.security.measured import peak_mb

MOST_MB = 1000
_ADDRESS_SPACE = 8 << 30
_WORK = "work"


def mutate(data: bytes, source: random.Random) -> bytes:
    """A few changes, most of them near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 4, 8))):
        at = source.randrange(max(1, min(len(changed), source.choice((64, 512, len(changed))))))
        kind = source.random()
        if kind < 0.5:
            changed[at : at + 1] = bytes([source.randrange(256)])
        elif kind < 0.65:
            del changed[at : at + source.randrange(1, 8)]
        elif kind < 0.8:
            changed[at:at] = source.randbytes(source.randrange(1, 8))
        elif kind < 0.95:
            changed[at : at + 4] = source.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80"))
        else:
            changed = changed[: source.randrange(1, len(changed) + 1)]
    return bytes(changed)


def _in_bundle(folder: Path, name: str, data: bytes) -> Path:
    """A copy of the seed bundle in which one file was exchanged and its hash put right."""
    import msgspec

    from edgecv.bundles.bundle import Bundle, describe_file
    from edgecv.bundles.manifest import MANIFEST, dump_manifest

    shutil.rmtree(folder / _WORK, ignore_errors=True)
    work = folder / _WORK
    shutil.copytree(folder / "seed.ecv", work)
    (work / name).write_bytes(data)
    document = msgspec.to_builtins(Bundle.open(folder / "seed.ecv").manifest)
    changed = msgspec.to_builtins(describe_file(work, work / name))

    def exchanged(value: object) -> object:
        if isinstance(value, dict):
            return changed if value.get("path") == name else {key: exchanged(each) for key, each in value.items()}
        return [exchanged(each) for each in value] if isinstance(value, (list, tuple)) else value

    from edgecv.bundles.manifest import Manifest

    (work / MANIFEST).write_bytes(dump_manifest(msgspec.convert(exchanged(document), Manifest)))
    return work


def _manifest(folder: Path, data: bytes) -> None:
    from edgecv.bundles.manifest import parse_manifest

    parse_manifest(data, "fuzz")


def _zip(folder: Path, data: bytes) -> None:
    from edgecv.bundles.packing import unpack

    (folder / "fuzz.zip").write_bytes(data)
    unpack(folder / "fuzz.zip", folder / "unpacked.ecv", force=True)


def _golden(folder: Path, data: bytes) -> None:
    from edgecv.bundles.bundle import Bundle
    from edgecv.bundles.golden import verify

    verify(Bundle.open(_in_bundle(folder, "golden.npz", data)))


def _session(runtime: str, suffix: str) -> Callable[[Path, bytes], None]:
    def load(folder: Path, data: bytes) -> None:
        from edgecv import registry
        from edgecv.bundles.ultralytics_metadata import spec_of
        from edgecv.specs import RuntimeOptions

        path = folder / f"model{suffix}"
        path.write_bytes(data)
        session = registry.resolve("runtimes", runtime)(path, RuntimeOptions(threads=1))
        try:
            spec_of(path, session)
        finally:
            session.close()

    return load


def _onnx_files(folder: Path, data: bytes) -> None:
    from edgecv.runtimes.onnx_files import check_external

    (folder / "files.onnx").write_bytes(data)
    check_external(folder / "files.onnx")


def _tflite(folder: Path, data: bytes) -> None:
    """What EdgeCV itself reads; LiteRT's operators are not proof against every model (docs/security.md)."""
    from edgecv.bundles.ultralytics_metadata import spec_of
    from edgecv.runtimes.tflite_files import check_tflite

    path = folder / "model.tflite"
    path.write_bytes(data)
    check_tflite(path, path.name)
    spec_of(path, None)  # type: ignore[arg-type]  # of a .tflite it reads the file alone


def _image(folder: Path, data: bytes) -> None:
    from edgecv.media.images import read_image

    (folder / "image").write_bytes(data)
    read_image(folder / "image")


def _metadata(folder: Path, data: bytes) -> None:
    from edgecv._internal.yaml_files import parse_yaml

    with contextlib.suppress(ValueError):  # what `spec_of` takes for unreadable metadata
        parse_yaml(data.decode("utf-8", "replace"), "openvino")


READERS: Mapping[str, Callable[[Path, bytes], None]] = {
    "manifest": _manifest,
    "zip": _zip,
    "golden": _golden,
    "onnx": _session("onnxruntime", ".onnx"),
    "onnx-files": _onnx_files,
    "openvino": _session("openvino", ".xml"),
    "tflite": _tflite,
    "image": _image,
    "metadata": _metadata,
}


def attempt(kind: str, folder: Path, data: bytes) -> int:
    """Give one input to the reader; an exit code as above."""
    from edgecv.errors import EdgeCVError

    try:
        READERS[kind](folder, data)
    except EdgeCVError:
        pass
    except BaseException:  # noqa: BLE001 - whatever it is, it is a find
        traceback.print_exc()
        return 3
    if peak_mb() > MOST_MB:
        print(f"{peak_mb():.0f} MB", file=sys.stderr)
        return 4
    return 0


def main(kind: str, seed: int, until: str, folder: Path) -> int:
    """Read mutated inputs for a time, or one file."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if Path(until).is_file():
        return attempt(kind, folder, Path(until).read_bytes())
    source = random.Random(seed)
    seeds = [path.read_bytes() for path in sorted((folder / "seeds").iterdir())]
    end, count = time.monotonic() + float(until), 0
    for data in seeds:
        if attempt(kind, folder, data):
            print("an honest file was not read", file=sys.stderr)
            return 3
    while time.monotonic() < end:
        data = mutate(source.choice(seeds), source)
        (folder / "current").write_bytes(data)
        count += 1
        if code := attempt(kind, folder, data):
            return code
    print(f"{kind}: {count} inputs with seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))
