"""Sessions of a variant; those that run what was compiled earlier are held against the bundle's golden vectors once."""

from __future__ import annotations

from edgecv.bundles.bundle import Bundle
from edgecv.bundles.golden import check_sessions
from edgecv.bundles.manifest import Variant
from edgecv.choosing import open_parts
from edgecv.errors import SessionError
from edgecv.protocols import RunsCompiled, Session
from edgecv.specs import RuntimeOptions


def open_checked(bundle: Bundle, variant: Variant, options: RuntimeOptions, runtime: str) -> dict[str, Session]:
    """As ``open_parts``; what comes from a cache of compiled models is tried before anybody relies on it.

    A cache that outlived a driver gave wrong results without an error (triton-inference-server/onnxruntime_backend issue 124).

    Raises:
        BundleError: a file of the variant is missing or changed.
        SessionError: the runtime cannot load it, or what was compiled computes something else than the bundle says.
    """
    sessions = open_parts(bundle, variant, options, runtime)
    if not any(isinstance(session, RunsCompiled) and session.from_cache for session in sessions.values()):
        return sessions
    try:
        differs = check_sessions(bundle, variant, sessions)
        if differs:
            raise SessionError(
                f"{variant.name} was compiled for {options.device} earlier, and does not compute what it should: {differs}.",
                f"Remove the folder `compiled` in EdgeCV's cache, then: edgecv tune {bundle.path} --device {options.device}",
            )
    except BaseException:
        for session in sessions.values():
            session.close()
        raise
    return sessions
