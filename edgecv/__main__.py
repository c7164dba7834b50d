"""``python -m edgecv``."""

from edgecv.cli.entry import main

main()
