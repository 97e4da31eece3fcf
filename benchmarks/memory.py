"""Memory of a process that has made ten thousand calls, above the bare interpreter."""

from benchmarks.cold import stores_in
from benchmarks.figures import Bar, Figure, Report, difference
from benchmarks.program import Program
from benchmarks.setting import Setting

LIMIT = 8.0  # MB
CALLS = 10_000
ROUNDS = 3
RSS = (
    "[print(line.split()[1]) for line in open('/proc/self/status')"
    " if line.startswith('VmRSS')]\n"
)
WORK = (
    "import espresso\n"
    "client = espresso.Client('sandbox-bench', base_url={url!r})\n"
    f"for _ in range({CALLS}): client.cancel_all('ADAUSDM')\n"
)


def megabytes(program: Program) -> float:
    """Run it once; return the resident memory it prints, in MB of 10^6 bytes."""
    return int(program.run("")) * 1024 / 1e6


class Memory:
    """Each build beside its own interpreter."""

    title = "memory"

    def __init__(self, setting: Setting) -> None:
        hashed, _ = stores_in(setting)
        environment = setting.environment | {"SSL_CERT_DIR": str(hashed)}
        work = WORK.format(url=setting.server.base_url) + RSS
        self._programs = {
            said: (
                Program(RSS, environment, python=python),
                Program(work, environment, python=python),
            )
            for said, python in setting.builds.items()
        }
        self._samples: dict[str, list[tuple[float, float]]] = {
            said: [] for said in self._programs
        }

    def measure(self) -> None:
        for _ in range(ROUNDS):
            for said, (bare, work) in self._programs.items():
                self._samples[said].append((megabytes(bare), megabytes(work)))

    def report(self) -> Report:
        lines = [f"resident memory after {CALLS:,} calls, MB: median [quartiles]"]
        figures: dict[str, object] = {}
        bars = []
        for said, samples in self._samples.items():
            bare, work = zip(*samples, strict=True)
            above = difference(work, bare)
            figures[f"espresso{said}"] = {
                "bare_megabytes": Figure.of(bare),
                "above_bare_megabytes": above,
            }
            lines.append(
                f"  {f'espresso{said}':36}{above.text(1, 1):>24} above"
                f" {Figure.of(bare).text(1, 1)}"
            )
            title = f"memory after {CALLS:,} calls{said}, above bare"
            bars.append(Bar(title, above.median, LIMIT, "MB"))
        return lines, figures, bars
