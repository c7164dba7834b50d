"""Runs the command line as ``python -m edgecv``."""

from edgecv.cli.entry import main

main()
