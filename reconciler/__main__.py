"""Run from a checkout: `python3 -m reconciler …`."""

from reconciler.cli import main

main()
