"""The Dockerfile as far as it can be checked without an engine: what it copies, installs and starts is there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import tomllib
import typer

from edgecv.cli import app as cli
from tests.conftest import CHECKOUT

FOLDER = CHECKOUT / "docs/deploy"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
# Programs of Debian and Python that are not on this list have no place in the image.
STEPS = {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "VOLUME", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
PACKAGES = {"python3", "python3-venv", "ca-certificates"}


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its argument, with continued lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def arguments(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def stages() -> list[tuple[str, str]]:
    """Each stage's base and its name."""
    found = [re.fullmatch(r"(\S+)(?: AS (\S+))?", line) for line in arguments("FROM")]
    return [(one[1], one[2] or "") for one in found if one is not None]


def test_every_instruction_is_known_and_has_an_argument() -> None:
    assert {name for name, _ in instructions()} <= STEPS
    assert all(rest for _, rest in instructions())


def test_the_base_is_one_dated_debian_12() -> None:
    (tag,) = [line.removeprefix("DEBIAN=") for line in arguments("ARG") if line.startswith("DEBIAN=")]
    assert re.fullmatch(r"bookworm-20\d{6}-slim", tag)
    names = {name for _, name in stages()}
    assert {base for base, _ in stages()} - names == {"debian:${DEBIAN}"}


def test_what_is_copied_is_there() -> None:
    names = {name for _, name in stages()}
    built = re.findall(r"^rm -rf build (\S+)$", _recipe("dist"), re.MULTILINE)
    allowed = [line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    for line in arguments("COPY"):
        *words, _ = shlex.split(line)
        stage = [word.removeprefix("--from=") for word in words if word.startswith("--from=")]
        sources = [word for word in words if not word.startswith("--")]
        if stage:
            assert stage[0] in names
            continue
        for source in sources:
            assert source in allowed, f"{source} is kept from the build"
            assert source.split("/")[0] in built or list(CHECKOUT.glob(source)), f"{source} is nowhere"
            assert fnmatch("dist/edgecv-0.1.0-py3-none-any.whl", source)


def _recipe(target: str) -> str:
    done = subprocess.run(["make", "-n", target], cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def test_the_extras_exist_and_bring_no_torch() -> None:
    extras: dict[str, list[str]] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (install,) = [line for line in arguments("RUN") if "pip install" in line]
    default = re.search(r"\$\{EXTRAS:-([\w,${}]+?)\}\"", install)
    runtimes = re.findall(r"runtime=(\w+)", install)
    assert default is not None and runtimes == ["tflite", "openvino"]
    names = set(runtimes) | {name for name in default[1].split(",") if name != "${runtime}"}
    assert names <= set(extras)
    assert names == {"device", "video", "track", "preview", *runtimes}
    assert not [line for name in names for line in extras[name] if "torch" in line]


def test_nothing_is_compiled_and_the_lists_of_packages_do_not_stay() -> None:
    for line in arguments("RUN"):
        assert "pip install" not in line or "--only-binary :all:" in line
        if "apt-get install" in line:
            wanted = line.partition("--no-install-recommends")[2].partition("&&")[0].split()
            assert set(wanted) <= PACKAGES
            assert "rm -rf /var/lib/apt/lists/*" in line


def test_it_runs_as_a_user_who_owns_the_one_folder_that_is_written() -> None:
    (user,), (folder,), (volume,) = arguments("USER"), arguments("WORKDIR"), arguments("VOLUME")
    (made,) = [line for line in arguments("RUN") if "useradd" in line]
    assert user.isdigit() and f"--uid {user} " in made, "with a number an orchestrator can tell that it is not root"
    assert "--groups video" in made
    assert folder == volume and f"-m 700 {folder}" in made
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")
    assert f"EDGECV_CACHE={folder}/cache" in arguments("ENV")[-1]


def test_the_command_is_one_that_exists() -> None:
    (program,), (words,) = arguments("ENTRYPOINT"), map(json.loads, arguments("CMD"))
    assert json.loads(program) == ["edgecv"]
    commands: dict[str, Any] = typer.main.get_command(cli._app()).commands  # type: ignore[attr-defined]
    context = commands[words[0]].make_context(words[0], words[1:])
    assert (context.params["config"].name, context.params["metrics"]) == ("app.toml", _health_port())


def _health_port() -> int:
    return int(re.findall(r"http://127\.0\.0\.1:(\d+)/healthz", arguments("HEALTHCHECK")[0])[0])


@pytest.fixture
def answering() -> Iterator[tuple[int, list[int]]]:
    """A server on loopback that gives ``/healthz`` the code in the list."""
    codes = [200]

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(codes[0] if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], codes
        server.shutdown()


def test_the_health_check_tells_well_from_unwell(answering: tuple[int, list[int]]) -> None:
    port, codes = answering
    program, *words = json.loads(arguments("HEALTHCHECK")[0].partition("CMD ")[2])
    assert program == "python"

    def check(to: int) -> int:
        command = [sys.executable, *(word.replace(str(_health_port()), str(to)) for word in words)]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode

    assert check(port) == 0
    codes[0] = 503
    assert check(port) == 1
    assert check(1) == 1, "nothing listens there"
