"""The rows of the fault matrix, and what is promised for each.

A row is one fault in one phase of a call. ``again`` says that the call tries again by
itself (and, if no attempt is left, that the error's `retryable` says so).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Promise:
    """What a call must say that meets this fault in each of its attempts."""

    phase: str
    fault: str
    kind: str
    """The class of the exception; "done": a result."""
    outcome: str
    """As in the exception; with a result: "done"."""
    again: bool

    @property
    def name(self) -> str:
        return f"{self.phase}: {self.fault}"


# "again" of what ends well means: within one call, nothing is lost.
_TABLE = """
local    | no descriptor                   | ConnectError        | not_sent | again
local    | no thread for the look-up       | ConnectError        | not_sent | again
local    | no memory for TLS               | ConnectError        | not_sent | again
local    | trust store unreadable          | CertificateError    | not_sent | -
DNS      | NXDOMAIN                        | ConnectError        | not_sent | again
DNS      | SERVFAIL                        | ConnectError        | not_sent | again
DNS      | no answer                       | RequestTimeoutError | not_sent | again
DNS      | wrong address                   | CertificateError    | not_sent | -
connect  | refused                         | ConnectError        | not_sent | again
connect  | unreachable                     | ConnectError        | not_sent | again
connect  | black hole                      | RequestTimeoutError | not_sent | again
connect  | first of two addresses dead     | done                | done     | -
connect  | accepted, then RST              | ConnectError        | not_sent | again
connect  | accepted, then FIN              | ConnectError        | not_sent | again
TLS      | hang                            | RequestTimeoutError | not_sent | again
TLS      | plain text                      | ConnectError        | not_sent | again
TLS      | garbage                         | ConnectError        | not_sent | again
TLS      | old version                     | ConnectError        | not_sent | again
TLS      | wrong name                      | CertificateError    | not_sent | -
TLS      | expired                         | CertificateError    | not_sent | -
TLS      | unknown CA                      | CertificateError    | not_sent | -
proxy    | nobody there                    | ConnectError        | not_sent | again
proxy    | CONNECT refused                 | ConnectError        | not_sent | again
proxy    | 407                             | ConnectError        | not_sent | again
proxy    | dies before it answers          | ConnectError        | not_sent | again
proxy    | dies in its answer              | ConnectError        | not_sent | again
proxy    | dies after its answer           | ConnectError        | not_sent | again
proxy    | hangs                           | RequestTimeoutError | not_sent | again
proxy    | tunnel dies after the request   | ConnectionLostError | unknown  | again
reuse    | FIN while idle                  | done                | done     | again
reuse    | RST while idle                  | done                | done     | again
reuse    | close_notify while idle         | done                | done     | again
reuse    | 408 while idle                  | done                | done     | again
reuse    | 408 and FIN while idle          | done                | done     | again
reuse    | extra answer while idle         | done                | done     | again
reuse    | half an answer while idle       | done                | done     | again
reuse    | FIN after our bytes left        | ConnectionLostError | unknown  | again
reuse    | RST after our bytes left        | ConnectionLostError | unknown  | again
reuse    | close_notify after our bytes    | ConnectionLostError | unknown  | again
send     | RST before a byte is read       | ConnectionLostError | unknown  | again
send     | RST in the middle               | ConnectionLostError | unknown  | again
send     | stall                           | RequestTimeoutError | unknown  | again
wait     | FIN                             | ConnectionLostError | unknown  | again
wait     | close_notify                    | ConnectionLostError | unknown  | again
wait     | RST                             | ConnectionLostError | unknown  | again
wait     | silence                         | RequestTimeoutError | unknown  | again
wait     | late answer                     | RequestTimeoutError | unknown  | again
headers  | partial status line, FIN        | ConnectionLostError | unknown  | again
headers  | partial status line, RST        | ConnectionLostError | unknown  | again
headers  | partial status line, silence    | RequestTimeoutError | unknown  | again
headers  | partial block, FIN              | ResponseError       | unknown  | again
headers  | partial block, close_notify     | ResponseError       | unknown  | again
headers  | all but the empty line, FIN     | ResponseError       | unknown  | again
headers  | partial block, RST              | ConnectionLostError | unknown  | again
headers  | partial block, silence          | RequestTimeoutError | unknown  | again
headers  | drip                            | RequestTimeoutError | unknown  | again
headers  | endless 1xx                     | RequestTimeoutError | unknown  | again
headers  | more than 300 KiB               | ResponseError       | unknown  | again
headers  | HTTP/0.9                        | ResponseError       | unknown  | again
headers  | garbage                         | ResponseError       | unknown  | again
headers  | two lengths                     | ResponseError       | unknown  | again
headers  | negative length                 | ResponseError       | unknown  | again
headers  | length with chunked             | ResponseError       | unknown  | again
headers  | 100 and 103, then 200           | done                | done     | -
status   | 301                             | ResponseError       | rejected | -
status   | 307                             | ResponseError       | rejected | -
status   | 429                             | RateLimitError      | rejected | again
status   | 4290                            | RateLimitError      | rejected | again
status   | 4000                            | BadRequestError     | rejected | -
status   | 4010                            | AuthenticationError | rejected | -
status   | 4106                            | InvalidSymbolError  | rejected | -
status   | 4200                            | OrderNotFoundError  | rejected | -
status   | 403 without a body              | PermissionDeniedError | rejected | -
status   | 5002                            | TradingLockedError  | rejected | again
status   | 500                             | ServerError         | unknown  | again
status   | 5000 under 400                  | ServerError         | unknown  | again
status   | 5001 under 503                  | UnavailableError    | unknown  | again
status   | 503 of Envoy                    | UnavailableError    | unknown  | again
status   | 408                             | APIError            | unknown  | again
status   | 200 with a code                 | AuthenticationError | rejected | -
status   | 200 with an error, no code      | ResponseError       | unknown  | -
status   | 201                             | ResponseError       | unknown  | -
status   | 202                             | ResponseError       | unknown  | -
status   | 204                             | ResponseError       | unknown  | -
status   | 206                             | ResponseError       | unknown  | -
status   | 200, empty                      | ResponseError       | unknown  | -
body     | none, FIN                       | ConnectionLostError | unknown  | again
body     | none, RST                       | ConnectionLostError | unknown  | again
body     | cut, FIN                        | ConnectionLostError | unknown  | again
body     | cut, close_notify               | ConnectionLostError | unknown  | again
body     | cut, RST                        | ConnectionLostError | unknown  | again
body     | chunk cut                       | ConnectionLostError | unknown  | again
body     | last chunk missing, FIN         | ConnectionLostError | unknown  | again
body     | last chunk missing, close_notify | ConnectionLostError | unknown | again
body     | last chunk missing, silence     | RequestTimeoutError | unknown  | again
body     | bad chunk                       | ConnectionLostError | unknown  | again
body     | close-delimited, FIN            | ResponseError       | unknown  | again
body     | close-delimited, close_notify   | ResponseError       | unknown  | again
body     | close-delimited and cut         | ResponseError       | unknown  | again
body     | none, silence                   | RequestTimeoutError | unknown  | again
body     | cut, silence                    | RequestTimeoutError | unknown  | again
body     | drip                            | RequestTimeoutError | unknown  | again
body     | more than 1 MiB                 | ResponseError       | unknown  | -
body     | endless chunks                  | ResponseError       | unknown  | -
body     | not JSON                        | ResponseError       | unknown  | -
body     | not strict JSON                 | ResponseError       | unknown  | -
body     | wrong shape                     | ResponseError       | unknown  | -
body     | wrong type                      | ResponseError       | unknown  | -
body     | HTML                            | ResponseError       | unknown  | -
after    | extra bytes after the answer    | done                | done     | -
caller   | Ctrl-C before the request       | KeyboardInterrupt   | not_sent | -
caller   | Ctrl-C after the request        | KeyboardInterrupt   | unknown  | -
caller   | task.cancel before the request  | CancelledError      | not_sent | -
caller   | task.cancel after the request   | CancelledError      | unknown  | -
caller   | close before the request        | ConnectError        | not_sent | -
caller   | close after the request         | ConnectionLostError | unknown  | -
shutdown | exit with a thread in a call    | exit                | unknown  | -
machine  | the wall clock jumps            | done                | done     | -
machine  | suspended while idle            | done                | done     | again
"""


def _read(table: str) -> dict[str, Promise]:
    promises: dict[str, Promise] = {}
    for line in table.strip().splitlines():
        phase, fault, kind, outcome, again = (cell.strip() for cell in line.split("|"))
        promise = Promise(phase, fault, kind, outcome, again == "again")
        assert promise.name not in promises, line
        promises[promise.name] = promise
    return promises


PROMISES = MappingProxyType(_read(_TABLE))
"""Every row by its name, ``"phase: fault"``, in the order of a call."""
