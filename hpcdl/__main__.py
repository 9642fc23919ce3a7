"""``python -m hpcdl``: the ``hpcdl`` command, for places where its script is not on PATH."""

import sys

from hpcdl.launch.cli import main

if __name__ == "__main__":
    sys.exit(main())
