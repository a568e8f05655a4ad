"""``python -m limask`` is the ``limask`` command."""

import sys

from limask.cli import main

if __name__ == "__main__":
    sys.exit(main())
