"""Samples, their middle and spread, and the bars that a figure must hold."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Median and quartiles of a list of samples."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Figure":
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)

    def text(self, factor: float = 1.0, digits: int = 0) -> str:
        """``median [low–high]``, each multiplied by factor."""
        values = (self.median, self.low, self.high)
        shown = [f"{value * factor:.{digits}f}" for value in values]
        return f"{shown[0]} [{shown[1]}–{shown[2]}]"


def ratio(samples: Sequence[float], yardstick: Sequence[float]) -> Figure:
    """Ratios within each round: what slows the whole machine slows both halves."""
    pairs = zip(samples, yardstick, strict=True)
    return Figure.of([sample / base for sample, base in pairs])


def difference(samples: Sequence[float], base: Sequence[float]) -> Figure:
    """Differences within each round."""
    return Figure.of([a - b for a, b in zip(samples, base, strict=True)])


@dataclass(frozen=True)
class Bar:
    """A promise: ``value``, a median, is at most ``limit``; or at least, if so said.

    The value is None where nothing was measured: such a bar is neither held nor
    missed.
    """

    name: str
    value: float | None
    limit: float
    unit: str
    at_least: bool = False

    @property
    def held(self) -> bool:
        if self.value is None:
            return False
        if self.at_least:
            return self.value >= self.limit
        return self.value <= self.limit

    @property
    def missed(self) -> bool:
        return self.value is not None and not self.held

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "held" if self.held else "NOT HELD"

    def text(self) -> str:
        value = "-" if self.value is None else f"{self.value:.2f}"
        bound = "at least" if self.at_least else "at most"
        return (
            f"  {self.name:52}{value:>8} {self.unit:4}"
            f" {bound:8} {self.limit:5.2f}   {self.verdict}"
        )


# What a part of the benchmark says: lines of its table, figures, bars.
Report = tuple[list[str], dict[str, object], list[Bar]]
