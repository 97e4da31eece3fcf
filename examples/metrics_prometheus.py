"""Count what espresso does, for Prometheus.

    python examples/metrics_prometheus.py ADAUSDM NIGHTUSDM

It needs ``pip install prometheus-client``. Put `Metrics` into your bot, make one when
it starts and hand it to the client: `on_event` is called once after each attempt. A
bot shows its numbers with ``prometheus_client.start_http_server(9108)``; here they
are printed.

Worth an alert: any `espresso_attempts_total` with outcome "unknown", and any
`espresso_guard_alarms_total`: a guard could not cancel.
"""

from __future__ import annotations

import logging
import sys

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)

import espresso

SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
PHASES = ("dns", "connect", "tls", "first_byte", "total")


def durations(event: espresso.Event) -> dict[str, float]:
    """Seconds spent in each phase; an event has them from the attempt's start."""
    taken: dict[str, float] = {}
    before = 0.0
    for phase in PHASES[:-1]:
        reached: float | None = getattr(event, phase)
        if reached is not None:
            taken[phase] = reached - before
            before = reached
    if event.total is not None:
        taken["total"] = event.total
    return taken


class Metrics:
    """Counters and histograms; an object is a function for `on_event`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.attempts = Counter(
            "espresso_attempts",
            "Attempts to cancel: done, rejected, unknown or not_sent, and the code.",
            ["symbol", "outcome", "code"],
            registry=registry,
        )
        self.lost_replies = Counter(
            "espresso_lost_replies",
            "Calls that succeeded after an attempt whose answer was lost.",
            ["symbol"],
            registry=registry,
        )
        self.phases = Histogram(
            "espresso_phase_seconds",
            "Seconds in each phase of an attempt, and in all of it.",
            ["phase"],
            buckets=SECONDS,
            registry=registry,
        )
        self.alarms = Counter(
            "espresso_guard_alarms", "Guards that could not cancel.", registry=registry
        )

    def __call__(self, event: espresso.Event) -> None:
        # A number with a label for each order would never end: symbols are few.
        code = "" if event.code is None else str(event.code)
        self.attempts.labels(event.symbol, event.outcome, code).inc()
        if event.lost_reply:
            self.lost_replies.labels(event.symbol).inc()
        for phase, seconds in durations(event).items():
            self.phases.labels(phase).observe(seconds)


class Alarms(logging.Handler):
    """Counts what a guard logs when it could not cancel."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(logging.CRITICAL)
        self.metrics = metrics

    def emit(self, record: logging.LogRecord) -> None:
        self.metrics.alarms.inc()


def main(symbols: list[str]) -> int:
    if not symbols:
        print("usage: metrics_prometheus.py SYMBOL...", file=sys.stderr)
        return 2
    metrics = Metrics()
    logging.getLogger("espresso").addHandler(Alarms(metrics))
    try:
        with espresso.Client(on_event=metrics) as client:
            client.cancel_all(symbols, confirm=True)
    finally:
        print(generate_latest().decode(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
