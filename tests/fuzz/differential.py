"""The core's JSON against Python's strict ``json``.

What ``json`` refuses, the core refuses; what the core accepts means the same. These
rules of the core are its own, and stated here as code (`own_rule`):

- a NUL in a string or a name, and half a surrogate pair, are refused;
- nesting deeper than 32, a number of more than 63 bytes, more than 256 members of the
  outermost object are refused;
- a member of the outermost object that stands twice is refused, deeper both are kept;
- ``NaN`` and ``Infinity``, which ``json`` takes by default, are no JSON;
- a number that a double does not hold exactly is read, and marked: no success may
  hold one.

Texts are made by rules, and torn by chance. ``python -m tests.fuzz.differential
--runs 20000`` makes the same ones for the same ``--seed``.
"""

import argparse
import contextlib
import json
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from espresso.sandbox import replies

DUMP = Path("build/fuzz/gcc/dump")
BATCH = 500
DEPTH_MAX, NUMBER_MAX, MEMBERS_MAX = 32, 63, 256
EXACT_MAX = 2**53

# ---- what must be said of a text -----------------------------------------------------


class Members(list[tuple[str, object]]):
    """An object as it is written: pairs, in order, none lost."""


class Number(str):
    """A number as it is written."""


def refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def read(text: bytes) -> object:
    """Read `text` as strict JSON; raises ValueError where Python's json refuses it."""
    return json.loads(
        text.decode("utf-8"),
        object_pairs_hook=Members,
        parse_int=Number,
        parse_float=Number,
        parse_constant=refuse,
    )


def depth_of(value: object) -> int:
    if isinstance(value, Members):
        return 1 + max((depth_of(item) for _, item in value), default=0)
    if isinstance(value, list):
        return 1 + max((depth_of(item) for item in value), default=0)
    return 0


def leaves(value: object) -> Iterator[str | Number]:
    """Every string, name and number in `value`."""
    if isinstance(value, Members):
        for name, item in value:
            yield name
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, str):
        yield value


def is_pure(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= x <= "\udfff" for x in text)


def own_rule(value: object) -> str | None:
    """What the core says of JSON that only it refuses; None: it must accept it."""
    numbers = [leaf for leaf in leaves(value) if isinstance(leaf, Number)]
    if depth_of(value) > DEPTH_MAX or any(len(x) > NUMBER_MAX for x in numbers):
        return "refused"
    if not all(is_pure(leaf) for leaf in leaves(value)):
        return "refused"
    if isinstance(value, Members):
        names = [name for name, _ in value]
        first = next((i for i, x in enumerate(names) if x in names[:i]), len(names))
        if first < min(len(names), MEMBERS_MAX):
            return "twice"
        if len(names) > MEMBERS_MAX:
            return "refused"
    return None


def is_held(number: Number) -> bool | None:
    """Whether a double holds it; None: by the core's own measure, either will do.

    Of an integer it is exact; one with a fraction or an exponent only may not be
    near the largest double, by its digits and its exponent.
    """
    if set(number) <= set("-0123456789"):
        return abs(int(number)) <= EXACT_MAX
    exponent = number.lower().partition("e")[2].lstrip("+")
    return True if len(exponent) < 3 or exponent.startswith("-") else None


def shown(value: object) -> str:
    """`value` as dump.c writes it."""
    if value is None:
        return "n"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, Number):
        return "d" + struct.pack(">d", float(value)).hex()
    if isinstance(value, str):
        return f"s{value.encode().hex()};"
    if isinstance(value, Members):
        return "{" + "".join(shown(name) + shown(item) for name, item in value) + "}"
    assert isinstance(value, list)
    return "[" + "".join(map(shown, value)) + "]"


def complaint(text: bytes, said: str) -> str | None:
    """What is wrong with what the core said of `text`; None: nothing."""
    try:
        value = read(text)
    except (ValueError, RecursionError):
        return None if said == "refused" else f"json refuses it, the core says {said}"
    rule = own_rule(value)
    if rule is not None:
        return None if said == rule else f"must be {rule}, the core says {said}"
    held = [is_held(leaf) for leaf in leaves(value) if isinstance(leaf, Number)]
    if said.startswith("!") and all(held):
        return "every number is held by a double, the core says not"
    if not said.startswith("!") and False in held:
        return "a number is not held by a double, the core does not say so"
    if said.removeprefix("!") != shown(value):
        return f"it means {shown(value)}, the core says {said}"
    return None


# ---- texts ---------------------------------------------------------------------------

NAMES = ("symbol", "order_ids", "code", "error", "", "a", "é", "\U0001f600", "Code")
STRINGS = ("ADAUSDM", "", 'x\\y"/', "\b\f\n\r\t", "é€\U0001f600", "\x7f", "a b", "\0")
NUMBERS = (
    "0", "-0", "4200", "1.5", "-1e-3", "1E+2", "9007199254740992", "9007199254740993",
    "1e308", "1e309", "5e-324", "1e-400", "0.1", "12345678901234567890", "1" * 63,
    "1" * 64, "01", "1.", ".5", "+1", "1e", "--1", "0x1", "NaN", "-Infinity",
)  # fmt: skip
SPACES = ("", "", "", " ", "\t", "\r\n", "\f", "\v", "\ufeff", "\u00a0")
PIECES = (
    b"\\u0000", b"\\ud83d", b"\\ude00", b"\\u00e9", b"\\x", b"\xff", b"\xc0\x80",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\0", b"\x01", b"{", b"}", b"[",
    b"]", b",", b":", b'"', b"\\", b"null", b"tru", b"1e5", b"-", b" ", b"\n",
)  # fmt: skip


def some_string(dice: random.Random) -> str:
    text = dice.choice(STRINGS)
    if dice.random() < 0.2:
        text = "".join(chr(dice.choice([0x41, 0xE9, 0x20AC, 0x1F600])) for _ in "abc")
    return json.dumps(text, ensure_ascii=dice.random() < 0.5)


def some_name(dice: random.Random) -> str:
    return json.dumps(dice.choice(NAMES), ensure_ascii=dice.random() < 0.5)


def some_value(dice: random.Random, depth: int) -> str:
    """A value as text, mostly valid, with white space anywhere."""
    kind = dice.randrange(7 if depth > 0 else 4)
    space = dice.choice(SPACES)
    if kind < 2:
        return space + some_string(dice)
    if kind == 2:
        return space + dice.choice(NUMBERS[: 13 if dice.random() < 0.8 else None])
    if kind == 3:
        return space + dice.choice(("null", "true", "false"))
    items = [some_value(dice, depth - 1) for _ in range(dice.randrange(4))]
    if kind == 4:
        return space + "[" + ",".join(items) + "]" + dice.choice(SPACES)
    names = [some_name(dice) for _ in items]
    pairs = [f"{name}{space}:{item}" for name, item in zip(names, items, strict=True)]
    return space + "{" + ",".join(pairs) + "}" + dice.choice(SPACES)


def nested(dice: random.Random) -> str:
    depth = dice.choice((1, 31, 32, 33, 34, 100, 2000))
    inside = dice.choice(("", "1", '"x"'))
    if dice.random() < 0.5:
        return "[" * depth + inside + "]" * depth
    return '{"a":' * depth + (inside or "null") + "}" * depth


def wide(dice: random.Random) -> str:
    count = dice.choice((255, 256, 257, 300))
    names = [f"m{i}" for i in range(count)]
    if dice.random() < 0.5:
        names[-1] = names[dice.randrange(count)]
    return "{" + ",".join(f'"{name}":{i}' for i, name in enumerate(names)) + "}"


def torn(dice: random.Random, text: bytes) -> bytes:
    """`text` with a few pieces cut out, put in or exchanged."""
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(text) + 1)
        until = min(len(text), at + dice.randrange(4))
        piece = dice.choice(PIECES) if dice.random() < 0.7 else dice.randbytes(1)
        text = text[:at] + piece + text[until:]
    return text


def texts(seed: int) -> Iterator[bytes]:
    """An endless row of texts, the same for the same seed."""
    dice = random.Random(seed)
    bodies = [replies.load(name).body for name in replies.names()]
    yield from bodies
    makers: list[Callable[[], str]] = [
        lambda: some_value(dice, 4),
        lambda: some_value(dice, 4),
        lambda: some_value(dice, 2),
        lambda: dice.choice(bodies).decode(),
        lambda: dice.choice(bodies).decode(),
    ]
    rare: list[Callable[[], str]] = [lambda: nested(dice), lambda: wide(dice)]
    while True:
        maker = dice.choice(rare if dice.random() < 0.02 else makers)
        text = maker().encode("utf-8", "surrogatepass")
        yield torn(dice, text) if dice.random() < 0.6 else text


# ---- the run -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """A text of which the core and Python think differently."""

    text: bytes
    complaint: str


@dataclass(slots=True)
class Result:
    """How much was compared, and what was found."""

    runs: int
    accepted: int
    seconds: float
    finding: Finding | None


class Core:
    """A running `dump`; a context manager."""

    def __init__(self, program: Path = DUMP) -> None:
        self._process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self) -> "Core":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)

    def ask(self, batch: list[bytes]) -> list[str]:
        """What the core says of each text.

        Raises RuntimeError if it ends in the middle: a crash, a sanitizer's finding.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        said = []
        for text in batch:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(struct.pack("<I", len(text)) + text)
                self._process.stdin.flush()
            line = self._process.stdout.readline()
            if not line.endswith(b"\n"):
                raise RuntimeError(f"the core ended on {text!r}")
            said.append(line.decode("ascii").rstrip("\n"))
        return said


def compare(core: Core, seed: int, runs: int | None, seconds: float | None) -> Result:
    """Compare until `runs` texts or `seconds` are over, or until the first finding."""
    begun = time.monotonic()
    result = Result(0, 0, 0.0, None)
    source = texts(seed)
    while result.finding is None:
        left = BATCH if runs is None else min(BATCH, runs - result.runs)
        if left <= 0 or (seconds is not None and time.monotonic() - begun >= seconds):
            break
        batch = [next(source) for _ in range(left)]
        for text, said in zip(batch, core.ask(batch), strict=True):
            result.runs += 1
            result.accepted += said not in {"refused", "twice"}
            words = complaint(text, said)
            if words is not None and result.finding is None:
                result.finding = Finding(text, words)
    result.seconds = time.monotonic() - begun
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, help="texts to compare (20000)")
    parser.add_argument("--seconds", type=float, help="how long to compare")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    runs = options.runs
    if runs is None and options.seconds is None:
        runs = 20000
    with Core() as core:
        result = compare(core, options.seed, runs, options.seconds)
    print(f"{result.runs} texts, {result.accepted} accepted, {result.seconds:.1f} s")
    if result.finding is not None:
        print(f"FINDING {result.finding.text!r}: {result.finding.complaint}")
    return 0 if result.finding is None else 1


if __name__ == "__main__":
    sys.exit(main())
