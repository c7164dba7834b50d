"""Looks single events up in Parquet, to compare them with what came in again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from edgecv._internal.extras import require
from edgecv.cloud_sync.store.layout import Partition, manifest_path
from edgecv.cloud_sync.store.manifest import Manifest, read_manifest

_ATTEMPTS = 5


class Archive:
    """The Parquet files of a store, for reading; the manifest is read again when it changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._manifest: Manifest | None = None
        self._seen: tuple[int, int] | None = None

    def digests(self, partition: Partition, device: str, boot: int, seqs: Sequence[int]) -> dict[int, set[str]]:
        """The digests of what is stored under these keys of a device.

        Raises:
            EdgeCVError: the manifest is damaged, or pyarrow is missing.
            OSError, ValueError: a file cannot be read.
        """
        for _ in range(_ATTEMPTS):
            try:
                return self._digests(partition, device, boot, seqs)
            except FileNotFoundError:  # another one took its place since the manifest was read
                self._manifest = None
        return self._digests(partition, device, boot, seqs)

    def _digests(self, partition: Partition, device: str, boot: int, seqs: Sequence[int]) -> dict[int, set[str]]:
        parquet = require("pyarrow.parquet", "cloud")
        found: defaultdict[int, set[str]] = defaultdict(set)
        wanted = [("device", "=", device), ("boot", "=", boot), ("seq", ">=", min(seqs)), ("seq", "<=", max(seqs))]
        for part in self._current().of(partition):
            path = str(self._folder / part.events.path)
            rows = parquet.read_table(path, columns=["seq", "digest"], filters=wanted, partitioning=None)
            for seq, digest in zip(rows["seq"].to_pylist(), rows["digest"].to_pylist(), strict=True):
                found[seq].add(f"{digest:016x}")
        return dict(found)

    def _current(self) -> Manifest:
        try:
            stat = manifest_path(self._folder).stat()
        except FileNotFoundError:
            return read_manifest(self._folder)
        seen = (stat.st_mtime_ns, stat.st_ino)
        if self._manifest is None or seen != self._seen:
            self._manifest, self._seen = read_manifest(self._folder), seen
        return self._manifest
