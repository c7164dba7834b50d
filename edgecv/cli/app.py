"""The command line: one file per command, each imported when it is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import typer

from edgecv._internal.foreign import is_out_of_files, more_files_hint
from edgecv.cli.console import fail, log_lines, show_traceback
from edgecv.errors import EdgeCVError
from edgecv.version import __version__

# Name -> module; the function of the same name in it is the command, or the group of commands.
COMMANDS: dict[str, str] = {
    "bench": "edgecv.cli.bench",
    "compare": "edgecv.cli.compare",
    "convert": "edgecv.cli.convert",
    "demo": "edgecv.cli.demo",
    "devices": "edgecv.cli.devices",
    "doctor": "edgecv.cli.doctor",
    "eval": "edgecv.cli.eval",
    "forget": "edgecv.cli.forget",
    "grid": "edgecv.cli.grid",
    "info": "edgecv.cli.info",
    "ingest": "edgecv.cli.ingest",
    "pack": "edgecv.cli.pack",
    "plugins": "edgecv.cli.plugins",
    "predict": "edgecv.cli.predict",
    "privacy": "edgecv.cli.privacy",
    "query": "edgecv.cli.query",
    "record": "edgecv.cli.record",
    "replay": "edgecv.cli.replay",
    "run": "edgecv.cli.run",
    "store": "edgecv.cli.store",
    "sync": "edgecv.cli.sync",
    "totals": "edgecv.cli.totals",
    "tune": "edgecv.cli.tune",
    "unpack": "edgecv.cli.unpack",
    "verify": "edgecv.cli.verify",
}

# typer brings its own copy of click from 0.29 on and click itself before: the base of its usage errors by either name.
_USAGE_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


_SMALLER = "Is an input far larger than it should be? If not, use a smaller one, or free some memory."


def _version(shown: bool) -> None:
    if shown:
        print(f"edgecv {__version__}")
        raise typer.Exit


def _app() -> typer.Typer:
    app = typer.Typer(
        name="edgecv",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="Convert vision models to proven INT8, run them on small devices, bring the results to the cloud.",
    )

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
        debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    ) -> None:
        pass

    for name, module in COMMANDS.items():
        found = _command(module, name)
        if isinstance(found, typer.Typer):  # commands below a name of their own
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _command(module: str, name: str) -> Callable[..., Any] | typer.Typer:
    found: Callable[..., Any] | typer.Typer = getattr(importlib.import_module(module), name)
    return found


def run_command() -> int:
    """Run the command that ``sys.argv`` names; its exit code (docs/architecture.md). Errors are the caller's to explain."""
    log_lines()
    try:
        return int(_app()(standalone_mode=False) or 0)
    except typer.Abort as error:
        raise error.__cause__ or KeyboardInterrupt() from None  # Ctrl-C, or an EOFError that is no end of ours


def explain(error: Exception, *, debug: bool = False) -> int:
    """Say in words what went wrong; the exit code of it. With ``debug`` the traceback of all but wrong usage is shown."""
    if isinstance(error, _USAGE_ERROR):
        error.show()
        return int(error.exit_code)
    if debug:
        show_traceback(error)
        return 1
    if isinstance(error, MemoryError):
        return fail(EdgeCVError("There is not enough memory for what was given.", _SMALLER))
    if is_out_of_files(error):
        return fail(EdgeCVError(f"Too many files are open: {str(error) or type(error).__name__}", more_files_hint()))
    if isinstance(error, EdgeCVError):
        return fail(error)
    return fail(EdgeCVError(f"{type(error).__name__}: {error}", "This is a bug in EdgeCV; --debug shows where."))
