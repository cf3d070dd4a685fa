"""`python -m gesso`: the command line."""

from __future__ import annotations

import sys

from gesso.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
