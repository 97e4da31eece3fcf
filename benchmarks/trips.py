"""Ten symbols cold over a link of 80 ms, in round trips.

Each sample is a fresh process at the other end of a link that `tests.link` makes, with
a server of its own there: TCP, TLS 1.3 and the request are three round trips, whatever
the number of symbols.
"""

from dataclasses import dataclass, field

from benchmarks.cold import hashed_store
from benchmarks.figures import Bar, Figure, Report
from benchmarks.program import Program, measure
from benchmarks.server import LISTS, nginx
from benchmarks.setting import Setting
from tests import link as links

LIMIT = 3.3  # round trips
DELAY = 0.04  # seconds one way
SYMBOLS = 10
ROUNDS = 15
TITLE = f"{SYMBOLS} symbols cold over an 80 ms link"
PROGRAM = """
import os, time, espresso
client = espresso.Client("sandbox-bench", base_url=os.environ["BENCH_URL"])
symbols = [f"S{number}USDM" for number in range(int(os.environ["BENCH_SYMBOLS"]))]
start = time.perf_counter()
results = client.cancel_all(symbols)
taken = time.perf_counter() - start
assert all(len(result["order_ids"]) == 2 for result in results)
print(taken)
"""


@dataclass
class AtTheOtherEnd(Program):
    """A program in the namespace of the link's client."""

    prefix: list[str] = field(default_factory=list)

    def command(self, python: str) -> list[str]:
        return [*self.prefix, *super().command(python)]


class Trips:
    """Round trips of each build, taken by the client's own process."""

    title = "trips"

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._samples: dict[str, list[float]] = {said: [] for said in setting.builds}
        self._lacking = links.why_not()

    def measure(self) -> None:
        if self._lacking:
            return
        folder = self._setting.folder / "link"
        folder.mkdir()
        with (
            links.Link(DELAY) as link,
            nginx(folder, links.SERVER, link.server_prefix) as server,
        ):
            environment = self._setting.environment | {
                "SSL_CERT_DIR": str(hashed_store(folder, server.ca_file)),
                "BENCH_URL": server.base_url + LISTS,
                "BENCH_SYMBOLS": str(SYMBOLS),
            }
            programs = {
                said: AtTheOtherEnd(PROGRAM, environment, True, python=python)
                for said, python in self._setting.builds.items()
            }
            for program in programs.values():
                program.prefix = link.prefix
            measure(list(programs.values()), self._rounds(), "")
        self._samples = {
            said: [seconds / link.round_trip for seconds in program.samples]
            for said, program in programs.items()
        }

    def _rounds(self) -> int:
        return min(ROUNDS, self._setting.processes)

    def report(self) -> Report:
        lines = [f"{TITLE}, round trips: median [quartiles]"]
        figures: dict[str, object] = {}
        bars = []
        for said, samples in self._samples.items():
            found = Figure.of(samples) if samples else None
            figures[f"espresso{said}"] = found
            told = found.text(1, 2) if found else f"not measured: {self._lacking}"
            lines.append(f"  {f'espresso{said}':36}{told:>24}")
            value = found.median if found else None
            bars.append(Bar(f"{TITLE}{said}", value, LIMIT, "rtt"))
        return lines, figures, bars
