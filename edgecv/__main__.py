"""``python -m edgecv``."""

from edgecv.cli.app import main

main()
