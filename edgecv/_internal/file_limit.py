"""Too few file descriptors: how to tell, and what to say."""

from __future__ import annotations

import errno
import resource

_ERRORS = frozenset({errno.EMFILE, errno.ENFILE})


def is_out_of_files(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that no more files can be opened."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _ERRORS:
            return True
        error = error.__cause__ or error.__context__
    return False


def more_files_hint() -> str:
    """The next step for a program that may open no more files."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f"This program may have {limit} files open at once; a camera takes about 8 of them. Allow more: ulimit -n 4096, or "
        "LimitNOFILE=4096 in a systemd service."
    )
