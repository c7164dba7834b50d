"""Why a worker ended that did not say so itself, in words."""

from __future__ import annotations

import re
import signal

from edgecv._internal.foreign import is_out_of_files, more_files_hint
from edgecv.pipelines.sources.live import LiveOptions
from edgecv.pipelines.sources.supervised import wire
from edgecv.pipelines.uris import Uri, scrub

_LAST_WORDS = 300  # of a worker that died, in the message
# What a process says before it ends because it gets no more memory: C++, Python, GLib, libc.
_NO_MEMORY = re.compile(r"bad_alloc|MemoryError|out of memory|failed to allocate|cannot allocate memory", re.IGNORECASE)


def no_process(name: str, error: OSError) -> wire.Failed:
    """The system has no process or descriptor left for a worker."""
    hint = more_files_hint() if is_out_of_files(error) else "Is memory left?"
    return wire.Failed("refused", f"{name} cannot be read: {error.strerror}.", hint)


def overdue(name: str, options: LiveOptions, was_live: bool) -> wire.Failed:
    """No frame came in time: the first after a worker was started, or the next one."""
    if not was_live:
        return wire.Failed(
            "timeout",
            f"{name} gave no frame within {options.connect_s:g} s.",
            "Is it switched on and reachable? A slow one needs more time: connect_s=30.",
        )
    return wire.Failed(
        "stale",
        f"{name} sent no frame for {options.deadline_s:g} s.",
        "It hangs or the network does; it is opened again. Fewer frames are meant? Say so: deadline_s=60.",
    )


def death(uri: Uri, options: LiveOptions, stderr: str, code: int) -> wire.Failed:
    """The process ended with a code, and last words that may hold credentials."""
    words = scrub(stderr.strip(), uri)[-_LAST_WORDS:]
    if code < 0 and _NO_MEMORY.search(words):
        return wire.out_of_memory(uri.name, options.memory_bytes)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    last = f" Its last words: {words}" if words else ""
    hint = "It is started again."
    if code == -signal.SIGKILL:
        hint += " Was the system out of memory? Then its journal says so (journalctl -k)."
    return wire.Failed("eof", f"The capture process of {uri.name} died ({how}).{last}", hint)
