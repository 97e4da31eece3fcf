"""``python -m tests.chaos --calls N --seed S``: one run, exit 1 on violations."""

from __future__ import annotations

import argparse
import sys

from .async_clients import ASYNC_FACES
from .clients import FACES
from .faults import all_names
from .run import Plan, report, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--client", choices=[*FACES, *ASYNC_FACES], default="espresso")
    parser.add_argument(
        "--workers", type=int, default=0, help="threads or tasks; 0: as the face has it"
    )
    parser.add_argument(
        "--only", default="", metavar="NAME,…", help="draw from these faults alone"
    )
    args = parser.parse_args()
    only = frozenset(filter(None, args.only.split(",")))
    if unknown := only.difference(all_names()):
        parser.error(f"no fault {', '.join(unknown)}; there are {all_names()}")
    finished = run(Plan(args.client, args.seed, args.calls, args.workers, only))
    print(report(finished))
    return 1 if finished.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
