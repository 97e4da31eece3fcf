"""What ``espresso cancel-all`` says when the call is over; imported then.

The result goes to stdout, a line or a JSON object for each symbol. Where orders may be
open, stderr says so in capitals, and what to do.
"""

from __future__ import annotations

import sys

from . import _cli
from .errors import EspressoError, RateLimitError, StillOpenError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._cli_cancel import Arguments
    from ._types import CancelAllResult

    Answer = CancelAllResult | BaseException


def report(answers: dict[str, Answer], status: int, arguments: Arguments) -> None:
    """Say what each symbol came to, and what is to be done after this exit status."""
    if arguments.json:
        _say_json(answers)
    elif status != _cli.USAGE:
        _cli.say(_table(answers, arguments.confirm))
    if status == _cli.USAGE:
        (error, *_) = answers.values()
        _cli.complain("cancel-all", f"{_in_options(error)}\nespresso: nothing was sent")
    elif status != _cli.OK:
        _cli.tell(_verdict(answers, status))


def _in_options(error: object) -> str:
    """The words of an error, with the options of the command for Python's keywords."""
    text = str(error)
    for keyword, option in (
        ("pass api_key=", "name a file in --api-key-file"),
        ("pass base_url=", "give --base-url"),
    ):
        text = text.replace(keyword, option)
    return text


def _say_json(answers: dict[str, Answer]) -> None:
    import json

    objects = [_as_object(symbol, answers) for symbol in answers]
    _cli.say("\n".join(map(json.dumps, objects)))


def _as_object(symbol: str, answers: dict[str, Answer]) -> dict[str, Any]:
    """What the exchange sent, or the attributes of the error."""
    answer = answers[symbol]
    if not isinstance(answer, BaseException):
        return {**answer, "outcome": "done"}
    told: dict[str, Any] = {
        "symbol": symbol,
        "error": type(answer).__name__,
        "message": _in_options(getattr(answer, "message", _told(symbol, answers))),
        "outcome": _outcome(symbol, answers),
        "retryable": not isinstance(answer, ValueError),
        "order_ids": [],
    }
    if isinstance(answer, EspressoError):
        told |= {name: getattr(answer, name) for name in _ATTRIBUTES}
    if isinstance(answer, RateLimitError):
        told["retry_after"] = answer.retry_after
    return told


_ATTRIBUTES = (
    *("code", "status_code", "outcome", "retryable", "order_ids"),
    *("attempts", "elapsed"),
)


def _outcome(symbol: str, answers: dict[str, Answer]) -> str:
    """That of the error; of a call that was cut short, what its note says."""
    answer = answers[symbol]
    if isinstance(answer, EspressoError):
        return answer.outcome
    was_kept = _told(symbol, answers).endswith("had not gone out")
    return "not_sent" if was_kept or isinstance(answer, ValueError) else "unknown"


def _told(symbol: str, answers: dict[str, Answer]) -> str:
    """The words of a failure; of a call that was cut short, the line about a symbol."""
    error = answers[symbol]
    notes = "\n".join(getattr(error, "__notes__", ())).splitlines()
    if not isinstance(error, EspressoError) and len(notes) == len(answers):
        return notes[list(answers).index(symbol)].removeprefix("espresso: ")
    return _in_options(error) or "interrupted"


def _table(answers: dict[str, Answer], is_confirmed: bool) -> str:
    """A line for each symbol, folded where a terminal would break it anywhere."""
    width = max(map(len, answers))
    lines = []
    for symbol in answers:
        answer = answers[symbol]
        if isinstance(answer, BaseException):
            state = _state(answer, _outcome(symbol, answers))
            text = f"{state}: {_told(symbol, answers)}"
        else:
            text = _success(answer, is_confirmed)
        lines.append(_fitted(f"{symbol:{width}}  {text}", width + 2))
    return "\n".join(lines)


def _success(result: CancelAllResult, is_confirmed: bool) -> str:
    count = len(result["order_ids"])
    orders = f"{count} order{'' if count == 1 else 's'} cancelled"
    if "lost_reply" in result:
        orders = f"{orders} or more, a reply was lost" if count else _REPLY_LOST
    elif not count:
        orders = "there was nothing to cancel"
    if is_confirmed:
        return f"nothing open; {orders}"
    return f"{orders}; not confirmed" if count else orders


_REPLY_LOST = "how many were cancelled is unknown, a reply was lost"


def _state(error: BaseException, outcome: str) -> str:
    """What is known of the orders after a failure, at its most cautious."""
    before = len(getattr(error, "order_ids", ()))
    so_far = f" ({before} cancelled so far)" if before else ""
    if isinstance(error, StillOpenError):
        return f"STILL OPEN{so_far}"
    if before or outcome == "unknown":
        return f"MAY BE OPEN{so_far}"
    return "NOT CANCELLED"


def _fitted(line: str, margin: int) -> str:
    """The line as it is for a file; for a terminal, folded to its width."""
    columns = _columns()
    return line if columns is None else _wrapped(line, columns, margin)


def _wrapped(line: str, columns: int, margin: int) -> str:
    if len(line) <= columns:
        return line
    import textwrap

    return textwrap.fill(
        line, columns, subsequent_indent=" " * margin, break_on_hyphens=False
    )


def _columns() -> int | None:
    """Columns of the terminal that stdout is; None where it is none."""
    import os

    try:
        return max(os.get_terminal_size(sys.stdout.fileno()).columns - 1, 40)
    except (AttributeError, OSError, ValueError):
        return None


def _verdict(answers: dict[str, Answer], status: int) -> str:
    """What to do now, for somebody who is in a hurry."""
    failures = {
        symbol: answer
        for symbol in answers
        if isinstance(answer := answers[symbol], BaseException)
    }
    head = "NOT DONE. Orders may be open on"
    advice = _advice(list(failures.values()), status)
    margin = len("espresso: ")
    return "\n".join(
        [
            "espresso: " + _cli.folded(head, failures),
            _wrapped(" " * margin + advice, _cli.LINE, margin),
        ]
    )


def _advice(errors: list[BaseException], status: int) -> str:
    if status == _cli.REFUSED:
        names = {type(error).__name__ for error in errors}
        reasons = [_TO_CHECK[name] for name in _TO_CHECK if name in names]
        what = ", ".join(reasons) or "see the message above"
        return f"The same command would fail again; to check: {what}."
    pauses = [
        error.retry_after for error in errors if isinstance(error, RateLimitError)
    ]
    wait = f" in {max(pause or 2 for pause in pauses):g} s" if pauses else ""
    advice = f"Run the same command again{wait}."
    if status != _cli.AGAIN:
        advice += " Once it is done, wait a few seconds before you quote."
    return advice


_TO_CHECK = {
    "AuthenticationError": "the key, and that it belongs to this host",
    "PermissionDeniedError": "from where you call (address, region)",
    "InvalidSymbolError": "the spelling of the symbol",
    "CertificateError": "the connection (espresso doctor)",
}
