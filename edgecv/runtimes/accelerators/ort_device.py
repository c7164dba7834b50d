"""The device of one session of ONNX Runtime: its providers with their options, and the engine where TensorRT needs one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from edgecv._internal.foreign import first_line
from edgecv._internal.printable import printable
from edgecv.bundles.opened_files import OpenedModel, path_of
from edgecv.errors import EdgeCVError, SessionError
from edgecv.runtimes.accelerators import nvidia
from edgecv.runtimes.accelerators.engines import BUILD, TENSORRT, Engines, engines_of, how_to_build
from edgecv.runtimes.accelerators.providers import check_available, check_used, given_options, placement_of
from edgecv.specs import RuntimeOptions

Providers: TypeAlias = list[tuple[str, dict[str, str]]]

log = logging.getLogger("edgecv.runtimes")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtDevice:
    """What ``device`` stands for: providers, the first choice first, and the options that the caller gives them."""

    runtime: Any
    names: tuple[str, ...]
    given: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, runtime: Any, options: RuntimeOptions) -> OrtDevice:
        """The device that is asked for.

        Raises:
            DeviceError: this build of onnxruntime lacks it.
            ConfigError: the options of its providers are wrong.
        """
        names = check_available(options.device, runtime.get_available_providers())
        return cls(runtime=runtime, names=names, given=given_options(options.extra, options.device))

    @property
    def package(self) -> Path:
        """The folder of the libraries of onnxruntime."""
        return Path(self.runtime.__path__[0]) / "capi"

    @property
    def keeps_compiled(self) -> bool:
        """Whether what it runs was compiled earlier."""
        return self.names[0] == TENSORRT

    def open(self, model: Path | OpenedModel, options: RuntimeOptions, create: Callable[[Providers], Any]) -> Any:
        """A session on it; ``create`` makes one with providers.

        Raises:
            DeviceError: TensorRT has no engine yet, and none may be built now.
            ConfigError: one may be built, and the cache cannot be written.
            SessionError: it has one, and cannot load it.
        """
        if options.device != "cpu":
            nvidia.preload(self.runtime)
        if not self.keeps_compiled:
            return create(self._providers())
        engines = engines_of(model, options, self.given.get(TENSORRT, {}), self.runtime, self.package)
        if not engines.are_built and options.extra.get(BUILD):
            self._build(engines, path_of(model).name, create)
        engines.check_built(path_of(model))
        known = engines.files()
        try:
            session = create(self._providers(engines.provider_options()))
        except EdgeCVError:
            raise
        except Exception as error:
            raise SessionError(
                f"TensorRT cannot load {path_of(model).name} with the engine in {engines.folder}: {first_line(error)}",
                f"Remove that folder. {how_to_build(path_of(model))}",
            ) from error
        if engines.files() != known:  # its own name for an engine says more than our key does
            log.warning("TensorRT did not take the engine in %s, and built it anew.", printable(str(engines.folder)))
        return session

    def _build(self, engines: Engines, name: str, create: Callable[[Providers], Any]) -> None:
        began = time.monotonic()
        log.warning("TensorRT is building an engine of %s: the first time may take minutes.", printable(name))
        with engines.begin() as folder:
            self.check_used(create(self._providers(engines.provider_options(folder))))
            engines.mark(folder)
        log.warning("The engine of %s took %.0f s; it is kept in %s.", name, time.monotonic() - began, engines.folder)

    def check_used(self, session: Any) -> dict[str, float]:
        """Where its nodes are computed; empty on the CPU.

        Raises:
            DeviceError: not where it was asked to.
        """
        share = placement_of(session) if len(self.names) > 1 else {}
        check_used(self.names[0], session.get_providers(), share, self.package)
        return share

    def _providers(self, tensorrt: Mapping[str, str] | None = None) -> Providers:
        options = {name: dict(self.given.get(name, {})) for name in self.names}
        if tensorrt is not None:
            options[TENSORRT] = dict(tensorrt)
        return list(options.items())
