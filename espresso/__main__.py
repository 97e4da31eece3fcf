"""``python -m espresso``: the command line."""

import sys

from espresso._cli import main

sys.exit(main())
