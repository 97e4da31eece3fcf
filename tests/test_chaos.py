"""The chaos judge: first that it sees, then what it sees.

A judge that reports nothing is worth nothing, so each of its rules is broken here
once by hand, a plain HTTP client is caught in the act, and a careful one goes
free. Then espresso makes 20,000 calls.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos import faults
from tests.chaos.driver import options_of
from tests.chaos.judge import ENOUGH, Figures, judge, timid
from tests.chaos.records import Claim, Flag, Note, Options, Post, Said, ServerLog
from tests.chaos.run import Plan, Run, report, run

SYMBOL = "C1-000007"
IDS = ("a", "b")
SEEDS = (1, 2, 3)
CALLS = 20_000

# --- records made by hand --------------------------------------------------------


def post(**changes: Any) -> Post:
    """A POST that was carried out and answered with 200 and the ids."""
    answered = Post(
        SYMBOL,
        conn=1,
        nth=1,
        t=10.0,
        fault="",
        complete=True,
        carried=True,
        whole=True,
        reading="done",
        statuses=(200,),
        ids=IDS,
        t_whole=10.001,
        end="keep",
    )
    return replace(answered, **changes)


def lost(**changes: Any) -> Post:
    """A POST whose answer never came."""
    return post(whole=False, reading="again", statuses=(), ids=(), end="fin", **changes)


def turned_down(code: int, **changes: Any) -> Post:
    """A POST answered whole with an API code."""
    reading = faults.error_reply(400, code).reading
    return post(reading=reading, code=code, statuses=(400,), ids=(), **changes)


def result(*ids: str, **extra: Any) -> Said:
    return Said(result={"symbol": SYMBOL, "order_ids": list(ids), **extra})


def error(name: str, outcome: str | None, **attributes: Any) -> Said:
    return Said(**{"error": name, "outcome": outcome, "attempts": 1, **attributes})


def claim(said: Said, elapsed: float = 0.05, **options: Any) -> Claim:
    plain = Options(timeout=1.0, max_retries=2, missing_ok=False)
    return Claim(SYMBOL, replace(plain, **options), 9.99, elapsed, said)


def note(flag: Flag, t: float = 10.0) -> Note:
    return Note(1, t, "something happened", flag=flag)


def rules(said: Claim, *log: Post | Note) -> Counter[str]:
    """The rules that one call breaks, by the server's log."""
    posts = [record for record in log if isinstance(record, Post)]
    notes = [record for record in log if isinstance(record, Note)]
    return judge([said], ServerLog(posts, notes), calls=1).rules


LOST = lost(t=10.0)
AGAIN = post(t=10.1, t_whole=10.101, conn=2)
NOTHING_OPEN = turned_down(4200, t=10.1, conn=2)
NOT_FOUND = error("OrderNotFoundError", "rejected", code=4200, status=400)
UNREACHED = error("ConnectError", "not_sent")
LOST_SAID = error("ConnectionLostError", "unknown")

RIGHT = {
    "200 with ids": (claim(result(*IDS)), post()),
    "200 on the second attempt": (claim(result(*IDS, lost_reply=True)), LOST, AGAIN),
    "4200 after a lost reply": (claim(result(lost_reply=True)), LOST, NOTHING_OPEN),
    "4200 with missing_ok": (claim(result(), missing_ok=True), NOTHING_OPEN),
    "4200 raised": (claim(NOT_FOUND), NOTHING_OPEN),
    "locked, then done": (claim(result(*IDS)), turned_down(5002), AGAIN),
    "never reached": (claim(UNREACHED),),
    "reply lost": (claim(LOST_SAID), LOST),
    "reply lost, request unread": (claim(LOST_SAID), note("blind")),
    "unread, then done": (
        claim(result(*IDS, lost_reply=True)),
        note("blind"),
        AGAIN,
    ),
    "timed out before, then done": (
        claim(result(*IDS, lost_reply=True), elapsed=0.5),
        AGAIN,
    ),
    "an orphan of a lost call": (claim(LOST_SAID), note("orphan")),
    "unknown wins over rejected": (
        claim(error("TradingLockedError", "unknown", attempts=2, code=5002)),
        LOST,
        turned_down(5002, t=10.1),
    ),
}

WRONG = {
    "done without a POST": ("done-unanswered", claim(result())),
    "done on a lost reply": ("done-unanswered", claim(result()), LOST),
    "done on a refusal": ("done-unanswered", claim(result()), turned_down(4010)),
    "done on an odd 200": (
        "done-unanswered",
        claim(result()),
        post(reading="odd", ids=()),
    ),
    "done on a cut answer": (
        "done-unanswered",
        claim(result(*IDS)),
        post(whole=False),
    ),
    "done on the first of two": ("done-unanswered", claim(result(*IDS)), post(), LOST),
    "poisoned": ("wrong-ids", claim(result("poison")), post()),
    "an id is missing": ("wrong-ids", claim(result("a")), post()),
    "ids are no list": (
        "wrong-ids",
        claim(Said(result={"symbol": SYMBOL, "order_ids": None})),
        post(),
    ),
    "another symbol": (
        "wrong-symbol",
        claim(Said(result={"symbol": "C1-000008", "order_ids": list(IDS)})),
        post(),
    ),
    "a plain 4200 as done": ("missing-as-done", claim(result()), NOTHING_OPEN),
    "lost reply kept quiet": ("lost-reply-missing", claim(result(*IDS)), LOST, AGAIN),
    "lost reply made up": (
        "lost-reply-unfounded",
        claim(result(*IDS, lost_reply=True)),
        post(),
    ),
    "lost reply without a retry": (
        "lost-reply-unfounded",
        claim(result(*IDS, lost_reply=True), max_retries=0, elapsed=0.5),
        post(),
    ),
    "lost reply after a certain no": (
        "lost-reply-unfounded",
        claim(result(*IDS, lost_reply=True)),
        turned_down(5002),
        AGAIN,
    ),
    "lost reply is false": (
        "lost-reply-not-true",
        claim(result(*IDS, lost_reply=False)),
        post(),
    ),
    "4200 raised after a lost reply": (
        "lost-reply-ignored",
        claim(replace(NOT_FOUND, outcome="unknown", attempts=2)),
        LOST,
        NOTHING_OPEN,
    ),
    "4200 raised with missing_ok": (
        "missing-raised",
        claim(NOT_FOUND, missing_ok=True),
        NOTHING_OPEN,
    ),
    "sent twice for one attempt": (
        "silent-resend",
        claim(LOST_SAID),
        LOST,
        replace(LOST, t=10.1),
    ),
    "sent twice without a retry": (
        "too-many-posts",
        claim(result(*IDS, lost_reply=True), max_retries=0),
        LOST,
        AGAIN,
    ),
    "more attempts than allowed": (
        "too-many-attempts",
        claim(error("ConnectError", "not_sent", attempts=4)),
    ),
    "not sent, but seen": ("not-sent-but-sent", claim(UNREACHED), LOST),
    "not sent, but seen in part": (
        "not-sent-but-sent",
        claim(UNREACHED),
        replace(LOST, complete=False, fault="partial"),
    ),
    "not sent, but an orphan": ("not-sent-but-sent", claim(UNREACHED), note("orphan")),
    "rejected after a lost reply": (
        "rejected-but-open",
        claim(error("TradingLockedError", "rejected", attempts=2, code=5002)),
        LOST,
        turned_down(5002, t=10.1),
    ),
    "rejected on 5000": (
        "rejected-but-open",
        claim(error("ServerError", "rejected", code=5000, status=400)),
        turned_down(5000),
    ),
    "rejected without a POST": (
        "rejected-unanswered",
        claim(error("BadRequestError", "rejected")),
    ),
    "a code from elsewhere": (
        "foreign-code",
        claim(error("AuthenticationError", "unknown", code=4010)),
        LOST,
    ),
    "a code without a POST": (
        "foreign-code",
        claim(error("AuthenticationError", "unknown", code=4010)),
    ),
    "a status from elsewhere": (
        "foreign-status",
        claim(error("APIError", "unknown", status=408)),
        post(),
    ),
    "a code in the wrong class": (
        "wrong-class",
        claim(error("APIError", "rejected", code=4106, status=400)),
        turned_down(4106),
    ),
    "ConnectError after sending": (
        "wrong-outcome",
        claim(error("ConnectError", "unknown")),
        LOST,
    ),
    "an exception without outcome": (
        "foreign-exception",
        claim(error("SystemError", None, attempts=None)),
        LOST,
    ),
    "ids on a plain error": (
        "foreign-exception",
        claim(error("ConnectionLostError", "unknown", order_ids=("a",))),
        LOST,
    ),
    "too late": ("overrun", claim(LOST_SAID, elapsed=1.51), LOST),
    "malformed request": (
        "malformed-request",
        claim(result(*IDS)),
        post(),
        note("malformed"),
    ),
}


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT.keys())
def test_right_claims_go_free(case: tuple[Any, ...]) -> None:
    assert not rules(*case)


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_wrong_claims_are_caught(case: tuple[Any, ...]) -> None:
    rule, *records = case
    assert rule in rules(*records)


def test_a_dead_client_is_a_violation() -> None:
    verdict = judge([], ServerLog([LOST], []), calls=1, died="ended with status -11")
    assert verdict.rules == {"crash": 1, "never-ended": 2}


# --- a client that risks nothing ---------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "rule"),
    [
        (Figures(prompt=Counter({"": ENOUGH})), "deaf"),
        (
            Figures(
                prompt=Counter({"": 9999, "redirect": 20}),
                believed=Counter({"": 9999}),
            ),
            "deaf",
        ),
        (Figures(chances=ENOUGH, persisted=ENOUGH // 2), "gives-up"),
        (Figures(unknowns=ENOUGH, unfounded=ENOUGH // 2), "over-cautious"),
    ],
)
def test_timidity_is_a_violation(figures: Figures, rule: str) -> None:
    assert {violation.rule for violation in timid(figures)} == {rule}


def test_good_figures_are_none() -> None:
    good = Figures(
        prompt=Counter({"": ENOUGH, "redirect": 20}),
        believed=Counter({"": ENOUGH, "redirect": 20}),
        chances=ENOUGH,
        persisted=ENOUGH,
        unknowns=ENOUGH,
    )
    assert not list(timid(good))


def test_an_answer_is_believed_only_in_its_class_and_code() -> None:
    at_once = {"t": 10.0, "t_whole": 10.001}
    refused = turned_down(4010, **at_once)
    right = error("AuthenticationError", "rejected", code=4010, status=400)
    for said, believed in (
        (right, 1),
        (replace(right, code=None), 0),
        (replace(right, outcome="unknown", error="ConnectionLostError"), 0),
        (result(), 0),
    ):
        log = ServerLog([refused], [])
        figures = judge([claim(said)], log, calls=1).figures
        assert figures.prompt.total() == 1
        assert figures.believed.total() == believed, said


# --- the dice ----------------------------------------------------------------------


def test_the_dice_are_the_same_for_the_same_seed() -> None:
    assert options_of(1, 7) == options_of(1, 7) != options_of(2, 7)
    orders = faults.place_orders(1, SYMBOL)
    assert orders == faults.place_orders(1, SYMBOL) != faults.place_orders(2, SYMBOL)


def test_there_are_thirty_faults_and_more() -> None:
    assert len(faults.all_names()) >= 30


# --- clients against the server ------------------------------------------------------


def caught(client: str, fault: str) -> Run:
    return run(Plan(client, seed=1, calls=300, threads=12, only=frozenset({fault})))


def test_a_silent_resend_is_caught() -> None:
    finished = caught("naive", "swallow_second")
    assert finished.verdict.rules["silent-resend"]
    assert "fault swallow_second" in report(finished)


def test_a_poisoned_answer_is_caught() -> None:
    finished = caught("naive", "idle_poison")
    assert finished.verdict.rules["wrong-ids"]
    assert finished.verdict.rules["foreign-code"]


def test_a_crash_is_caught() -> None:
    finished = caught("crashing", "redirect")
    assert finished.verdict.rules["crash"] == 1
    assert "ended with status -9" in report(finished)


def test_a_careful_client_goes_free() -> None:
    finished = run(Plan("careful", seed=1, calls=1500))
    assert not finished.verdict.violations, report(finished)
    assert finished.verdict.figures.on_used_connections > 750


@pytest.mark.chaos
@pytest.mark.parametrize("seed", SEEDS)
def test_espresso_keeps_its_word(seed: int) -> None:
    """20,000 calls over three seeds, no violation."""
    calls = CALLS // len(SEEDS) + (seed <= CALLS % len(SEEDS))
    finished = run(Plan("espresso", seed, calls))
    print(report(finished))
    assert not finished.verdict.violations, report(finished)
    assert not finished.undrawn
    assert finished.verdict.figures.on_used_connections > calls / 2
