"""Checks of arguments: TypeError for a wrong type, ValueError for the range."""

from __future__ import annotations

import math

__all__ = ["check_choice", "check_count", "check_flag", "check_number"]


def check_number(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number, not {type(value).__name__}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{what} is a finite number from 0, not {value!r}")


def check_count(what: str, value: object, least: int = 0) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is an int, not {type(value).__name__}")
    if value < least:
        raise ValueError(f"{what} is an int from {least}, not {value}")


def check_choice(what: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{what} is one of {', '.join(choices)}, not {value!r}")


def check_flag(what: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{what} is True or False, not {type(value).__name__}")
