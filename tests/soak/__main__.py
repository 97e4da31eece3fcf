"""``python -m tests.soak --calls N``: one run, exit 1 where a bound is not held."""

from __future__ import annotations

import argparse
import sys

from .client import WARM_UP_CALLS
from .run import report, run

LEAST = 2 * WARM_UP_CALLS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.calls < LEAST:
        parser.error(f"less than {LEAST} calls are no soak: they end warming up")
    finished = run(options.calls, options.seed)
    print(report(finished))
    return 0 if all(line.is_held for line in finished.lines()) else 1


if __name__ == "__main__":
    sys.exit(main())
