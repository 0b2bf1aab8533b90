"""``python -m ice_punch``."""

import sys

from ice_punch.cli import main

if __name__ == "__main__":
    sys.exit(main())
