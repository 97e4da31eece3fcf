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
    """A promise: ``value``, a median, is at most ``limit``."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def held(self) -> bool:
        return self.value <= self.limit

    def text(self) -> str:
        verdict = "held" if self.held else "NOT HELD"
        return (
            f"  {self.name:52}{self.value:8.2f} {self.unit:4}"
            f" at most {self.limit:5.2f}   {verdict}"
        )
