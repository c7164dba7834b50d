"""The top-level folders become the package ``edgecv``; metadata is in ``pyproject.toml``."""

from setuptools import find_packages, setup

ROOMS = ("converters", "quantize", "pipelines", "devices", "cloud_sync", "benchmarks")
FOLDERS = ("edgecv", *ROOMS)

# Programs that measure this project itself are no part of what is installed.
LEFT_OUT = ("lab", "lab.*")
packages = [
    name for folder in FOLDERS for name in [folder, *(f"{folder}.{sub}" for sub in find_packages(folder, LEFT_OUT))]
]

setup(
    packages=[name if name.split(".")[0] == "edgecv" else f"edgecv.{name}" for name in packages],
    package_dir={"edgecv": "edgecv", **{f"edgecv.{room}": room for room in ROOMS}},
)
