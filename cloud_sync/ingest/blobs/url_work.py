"""Signing, and looking at what was uploaded: what may take seconds, in threads of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edgecv.cloud_sync.blobs.messages import State
from edgecv.cloud_sync.ingest.blobs.signers import BlobName, SignedUrl, UrlSigner, look
from edgecv.cloud_sync.mqtt.topics import Address
from edgecv.errors import SyncError

_T = TypeVar("_T")
_THREADS = 4
_MOST_SIGNING = 64


class UrlWork:
    """At most one URL of a device is being signed at a time. Answers go back through ``later``, to the thread that asked."""

    def __init__(self, signer: UrlSigner, later: Callable[[Callable[[], None]], None]) -> None:
        self._signer = signer
        self._later = later
        self._signing: set[Address] = set()
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="edgecv-blob-url")

    def sign(self, name: BlobName, done: Callable[[SignedUrl | None, str], None]) -> bool:
        """Have a URL made; ``done`` gets it, or why there is none. ``False`` when too many are being made."""
        if name.address in self._signing or len(self._signing) >= _MOST_SIGNING:
            return False
        self._signing.add(name.address)

        def tell(signed: SignedUrl | None, why: str) -> None:
            self._signing.discard(name.address)
            done(signed, why)

        self._submit(lambda: self._signer.sign(name), tell)
        return True

    def look(self, signed: SignedUrl, size_bytes: int, done: Callable[[State | None, str], None]) -> None:
        """Look whether an upload is there; ``done`` gets its state, or why it is not there."""
        self._submit(lambda: look(signed, size_bytes), done)

    def close(self) -> None:
        """Take no more work; what runs ends by its own deadline."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, work: Callable[[], _T], done: Callable[[_T | None, str], None]) -> None:
        def run() -> None:
            answer, why = None, ""
            try:
                answer = work()
            except SyncError as error:
                why = error.message
            except Exception as error:  # noqa: BLE001 (the signer may be somebody else's)
                why = f"The signer of URLs broke: {type(error).__name__}."
            self._later(lambda: done(answer, why))

        self._pool.submit(run)
