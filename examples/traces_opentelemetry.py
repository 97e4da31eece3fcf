"""Show each attempt of espresso as a span, for OpenTelemetry.

    python examples/traces_opentelemetry.py ADAUSDM NIGHTUSDM

It needs ``pip install opentelemetry-sdk``. Hand `Spans` to the client as `on_event`:
an attempt is a span of its own, with its phases as events, and a child of the span in
which your bot makes the call. Here they are printed; your bot has its own exporter.

An `AsyncClient` calls `on_event` from the event loop, where the current span may be
that of any task. Give it ``Spans(parent=Context())``: its spans then have no parent.
Find them by symbol and time.
"""

from __future__ import annotations

import sys
import time

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

import espresso

PHASES = ("dns", "connect", "tls", "first_byte")


def attributes(event: espresso.Event) -> dict[str, str | int | bool]:
    """What is known of the attempt, under the names that OpenTelemetry has for it."""
    known: dict[str, str | int | bool | None] = {
        "espresso.symbol": event.symbol,
        "espresso.attempt": event.attempt,
        "espresso.outcome": event.outcome,
        "espresso.lost_reply": event.lost_reply,
        "espresso.reused": event.reused,
        "espresso.code": event.code,
        "http.request.method": "POST",
        "http.response.status_code": event.status_code,
        "network.peer.address": event.remote or None,
    }
    return {name: value for name, value in known.items() if value is not None}


class Spans:
    """Makes a span of each attempt; an object is a function for `on_event`."""

    def __init__(
        self, tracer: trace.Tracer | None = None, *, parent: Context | None = None
    ) -> None:
        self.tracer = tracer or trace.get_tracer("espresso", espresso.__version__)
        self.parent = parent  # None: the span in which the call is made

    def __call__(self, event: espresso.Event) -> None:
        end = time.time_ns()  # the attempt has just ended
        start = end - int((event.total or 0.0) * 1e9)
        span = self.tracer.start_span(
            "espresso.attempt",
            context=self.parent,
            kind=SpanKind.CLIENT,
            attributes=attributes(event),
            start_time=start,
        )
        for phase in PHASES:
            reached: float | None = getattr(event, phase)
            if reached is not None:
                span.add_event(phase, timestamp=start + int(reached * 1e9))
        if event.outcome != "done":
            span.set_status(StatusCode.ERROR, event.outcome)
        span.end(end)


def main(symbols: list[str]) -> int:
    if not symbols:
        print("usage: traces_opentelemetry.py SYMBOL...", file=sys.stderr)
        return 2
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("bot")
    client = espresso.Client(on_event=Spans())
    with client, tracer.start_as_current_span("stop trading"):
        client.cancel_all(symbols, confirm=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
