"""Opens a session on a runtime: the one place where the adapter of a runtime is called."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgecv import registry
from edgecv.bundles.opened_files import OpenedModel
from edgecv.protocols import RuntimeAdapter, Session
from edgecv.runtimes.core_set import bound_to
from edgecv.runtimes.cpu_budget import effective_cpus
from edgecv.specs import RuntimeOptions, TensorSpec


def open_session(
    runtime: str,
    model: Path | OpenedModel,
    options: RuntimeOptions,
    inputs: tuple[TensorSpec, ...] = (),
    outputs: tuple[TensorSpec, ...] = (),
) -> Session:
    """Load a model file, or the checked files of a bundle, on a runtime; specs are the file's own by default.

    With ``options.cores`` its threads, and a thread while it calls ``run``, stay on those cores; others do not.
    A plug-in that knows no opened files is given their path.
    A number of threads that is not given is the number of CPUs that this process may use: a runtime would count those of the
    whole machine, or take one.

    Raises:
        UnknownPlugin: there is no such runtime.
        MissingDependency: the runtime is not installed.
        SessionError: the runtime cannot load the model, or the process may not run on the cores.
    """
    adapter: type[RuntimeAdapter] = registry.resolve("runtimes", runtime)
    if isinstance(model, OpenedModel) and not adapter.takes_opened_files:
        model = model.path
    options = msgspec.structs.replace(options, threads=options.threads or effective_cpus())
    made = bound_to(adapter, options.cores) if options.cores else adapter
    return made(model, options, inputs, outputs)
