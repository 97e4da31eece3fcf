"""What a person waits for: ``espresso cancel-all ADAUSDM`` typed into a shell.

``make bench-cli``, or a part of ``make bench``. The whole life of the process is
measured, beside that of an interpreter that does nothing; the request has reached the
server before that. The server answers that nothing is open, so that the command ends
after one round, with a proof.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.cold import cold_lines, stores_in
from benchmarks.figures import Bar, Figure, Report, ratio
from benchmarks.program import BARE, Program, measure
from benchmarks.server import NOTHING_OPEN
from benchmarks.setting import Setting

LIMIT = 3.2  # times the bare interpreter, typed command to its end

SYMBOL = "ADAUSDM"
# What installers write today; older ones import `re` first, which takes longer than
# loading libcurl, and which no package can keep them from.
NEWER_SCRIPT = (
    "import sys; from espresso._cli import main;"
    f" sys.exit(main(['cancel-all', '{SYMBOL}']))"
)


@dataclass
class Command(Program):
    """A command of a shell; `code` holds its words."""

    def command(self, python: str) -> list[str]:
        program, *words = self.code.split()
        return [str(Path(python).with_name(program)), *words]


class CommandLine:
    """The commands of this benchmark, and what their samples mean."""

    title = "command_line"

    def __init__(self, setting: Setting) -> None:
        server, python = setting.server, setting.ours
        environment = setting.environment
        hashed, _ = stores_in(setting)
        given = {
            **environment,
            "DELTADEFI_API_KEY": "sandbox-bench",
            "DELTADEFI_BASE_URL": server.base_url + NOTHING_OPEN,
            "SSL_CERT_DIR": str(hashed),
        }
        name = Path(python).name
        self.python = python
        self.rounds = setting.processes
        self.bare = Program(BARE, environment)
        self.typed = Command(f"espresso cancel-all {SYMBOL}", given)
        self.with_option = Command(f"espresso cancel-all {SYMBOL} --json", given)
        self.as_module = Command(f"{name} -m espresso cancel-all {SYMBOL}", given)
        self.newer_script = Program(NEWER_SCRIPT, given)

    def measure(self) -> None:
        programs = [p for p in vars(self).values() if isinstance(p, Program)]
        measure(programs, self.rounds, self.python)

    def report(self) -> Report:
        """Return the lines of the table, the figures, and the bars."""
        bare = self.bare.samples
        typed = ratio(self.typed.samples, bare)
        figures: dict[str, object] = {
            "bare_interpreter_seconds": Figure.of(bare),
            "typed_seconds": Figure.of(self.typed.samples),
            "typed_ratio": typed,
            "typed_with_an_option_ratio": ratio(self.with_option.samples, bare),
            "as_module_ratio": ratio(self.as_module.samples, bare),
            "script_of_newer_installers_ratio": ratio(self.newer_script.samples, bare),
        }
        lines = [
            "espresso cancel-all, whole process: median [quartiles]",
            *(f"  {line}" for line in cold_lines(figures)),
        ]
        return lines, figures, [Bar("cancel-all / bare", typed.median, LIMIT, "x")]
