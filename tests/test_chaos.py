"""The chaos judge: first that it sees, then what it sees.

A judge that reports nothing is worth nothing, so each of its rules is broken here
once by hand, a plain HTTP client is caught in the act, and a careful one goes
free. Then espresso makes 20,000 calls, through each of its faces a share.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos import faults
from tests.chaos.driver import options_of, symbols_of
from tests.chaos.judge import ENOUGH, Figures, judge, timid
from tests.chaos.records import (
    CANCELLED,
    RATE_CALLS,
    Claim,
    Flag,
    Note,
    Options,
    Post,
    Said,
    ServerLog,
)
from tests.chaos.run import Plan, Run, report, run

pytestmark = pytest.mark.alone

SYMBOL = "C1-000007"
IDS = ("a", "b")
CALLS = 20_000
FACES = {
    "espresso": 1,
    "espresso-list": 2,
    "espresso-async": 3,
    "espresso-async-list": 4,
}
"""The seed of each."""

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


def confirmed(said: Said, **options: Any) -> Claim:
    return claim(said, confirm=True, **options)


def still_open(*ids: str, attempts: int = 1) -> Said:
    return error("StillOpenError", "unknown", attempts=attempts, order_ids=ids)


def cancelled(outcome: str, **options: Any) -> Claim:
    return claim(error(CANCELLED, outcome), **{"cancel_after": 0.05, **options})


LOST = lost(t=10.0)
AGAIN = post(t=10.1, t_whole=10.101, conn=2)
NOTHING_OPEN = turned_down(4200, t=10.1, conn=2)
NOT_FOUND = error("OrderNotFoundError", "rejected", code=4200, status=400)
UNREACHED = error("ConnectError", "not_sent")
LOST_SAID = error("ConnectionLostError", "unknown")
MORE = post(t=10.05, t_whole=10.051, ids=("c",))
NO_IDS = post(t=10.05, t_whole=10.051, ids=())

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
    "confirmed": (confirmed(result(*IDS)), post(), NOTHING_OPEN),
    "confirmed at once": (confirmed(result()), NOTHING_OPEN),
    "confirmed in three rounds": (
        confirmed(result(*IDS, "c")),
        post(),
        MORE,
        NOTHING_OPEN,
    ),
    "a round without retries": (
        confirmed(result(*IDS, "c"), max_retries=0),
        post(),
        MORE,
        NOTHING_OPEN,
    ),
    "a round without ids": (confirmed(result()), NO_IDS, NOTHING_OPEN),
    "a round whose reply was lost": (
        confirmed(result("c", lost_reply=True)),
        post(),
        MORE,
        NOTHING_OPEN,
    ),
    "still open": (replace(confirmed(still_open(*IDS)), elapsed=0.95), post()),
    "refused after a round": (
        confirmed(
            error(
                "AuthenticationError",
                "rejected",
                attempts=2,
                code=4010,
                status=400,
                order_ids=IDS,
            )
        ),
        post(),
        turned_down(4010, t=10.1),
    ),
    "cancelled before": (cancelled("not_sent"),),
    "cancelled on its way": (cancelled("unknown"), LOST),
    "cancelled too late": (cancelled("done"), post()),
    "cancelled between two attempts": (cancelled("rejected"), turned_down(5002)),
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
    "confirmed without a word of it": (
        "unconfirmed",
        confirmed(result(*IDS)),
        post(),
    ),
    "a round is missing": (
        "lost-reply-missing",
        confirmed(result("c")),
        post(),
        MORE,
        NOTHING_OPEN,
    ),
    "half a round": ("wrong-ids", confirmed(result("a")), post(), NOTHING_OPEN),
    "rounds in the wrong order": (
        "wrong-ids",
        confirmed(result("c", *IDS)),
        post(),
        MORE,
        NOTHING_OPEN,
    ),
    "a lost reply of rounds made up": (
        "lost-reply-unfounded",
        confirmed(result(*IDS, lost_reply=True)),
        post(),
        NOTHING_OPEN,
    ),
    "4200 raised with confirm": (
        "missing-raised",
        confirmed(NOT_FOUND),
        NOTHING_OPEN,
    ),
    "too many in one round": (
        "too-many-posts",
        confirmed(result(*IDS, lost_reply=True), max_retries=0),
        LOST,
        post(t=10.05, t_whole=10.051),
        NOTHING_OPEN,
    ),
    "ids of an error are not of its rounds": (
        "wrong-ids",
        confirmed(replace(LOST_SAID, order_ids=("poison",), attempts=2)),
        post(),
        lost(t=10.1),
    ),
    "rejected, with a round kept quiet": (
        "rejected-but-open",
        confirmed(error("TradingLockedError", "rejected", attempts=2, code=5002)),
        post(),
        turned_down(5002, t=10.1),
    ),
    "still open without confirm": (
        "still-open-unfounded",
        claim(still_open(*IDS), elapsed=0.95),
        post(),
    ),
    "still open, but empty": (
        "still-open-unfounded",
        replace(confirmed(still_open()), elapsed=0.95),
        NO_IDS,
    ),
    "still open too early": (
        "still-open-early",
        confirmed(still_open(*IDS)),
        post(),
    ),
    "still open under another name": (
        "still-open-missed",
        confirmed(error("RequestTimeoutError", "unknown", order_ids=IDS)),
        post(),
    ),
    "no attempt": (
        "never-tried",
        claim(error("RequestTimeoutError", "not_sent", attempts=0)),
    ),
    "no attempt, but an answer": (
        "never-tried",
        claim(error("APIError", "unknown", attempts=0)),
    ),
    "cancelled unasked": (
        "cancelled-unasked",
        cancelled("not_sent", cancel_after=None),
    ),
    "cancelled, but sent": ("not-sent-but-sent", cancelled("not_sent"), LOST),
    "cancelled, not done": ("done-unanswered", cancelled("done"), LOST),
    "cancelled, not rejected": ("rejected-but-open", cancelled("rejected"), LOST),
    "cancelled without a note": (
        "foreign-exception",
        claim(error(CANCELLED, None), cancel_after=0.05),
    ),
    "cancelled, and goes on": (
        "overrun",
        replace(cancelled("unknown"), elapsed=0.9),
        LOST,
    ),
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


# --- calls of several symbols ----------------------------------------------------


def press(*said: Said) -> list[Claim]:
    """One call of so many symbols, C1-000000 and so on."""
    names = [f"C1-{number:06d}" for number in range(len(said))]
    return [
        replace(claim(one), id=name, press=names[0])
        for name, one in zip(names, said, strict=True)
    ]


def all_at(*times: float) -> ServerLog:
    """The answers to such a call, which arrived at these times."""
    names = (f"C1-{number:06d}" for number in range(len(times)))
    posts = [
        post(id=name, t=t, t_whole=t) for name, t in zip(names, times, strict=True)
    ]
    return ServerLog(posts, [])


def results(count: int) -> list[Said]:
    return [
        Said(result={"symbol": f"C1-{number:06d}", "order_ids": list(IDS)}, attempts=1)
        for number in range(count)
    ]


def test_a_pace_of_ten_in_two_seconds_goes_free() -> None:
    claims = press(*results(RATE_CALLS + 1))
    log = all_at(*[10.0] * RATE_CALLS, 12.0)
    assert not judge(claims, log, calls=len(claims)).rules


def test_an_eleventh_post_of_one_call_is_too_fast() -> None:
    claims = press(*results(RATE_CALLS + 1))
    log = all_at(*[10.0] * RATE_CALLS, 11.0)
    assert judge(claims, log, calls=len(claims)).rules == {"too-fast": 1}


def test_calls_apart_have_no_pace() -> None:
    claims = [replace(one, press="") for one in press(*results(RATE_CALLS + 1))]
    log = all_at(*[10.0] * (RATE_CALLS + 1))
    assert not judge(claims, log, calls=len(claims)).rules


def test_a_turn_may_not_come_in_a_long_list() -> None:
    late = error("RequestTimeoutError", "not_sent", attempts=0)
    claims = press(*results(RATE_CALLS), late)
    log = all_at(*[10.0] * RATE_CALLS)
    assert not judge(claims, log, calls=len(claims)).rules


def test_answers_of_other_symbols_are_caught() -> None:
    one, other = results(2)
    log = all_at(10.0, 10.0)
    found = judge(press(other, one), log, calls=2).rules
    assert found["wrong-symbol"] == 2


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
    assert symbols_of(1, 7, 14) == symbols_of(1, 7, 14)
    assert {symbols_of(1, number, 14) for number in range(300)} == set(range(1, 15))
    orders = faults.place_orders(1, SYMBOL)
    assert orders == faults.place_orders(1, SYMBOL) != faults.place_orders(2, SYMBOL)


def test_there_are_thirty_faults_and_more() -> None:
    assert len(faults.all_names()) >= 30


# --- clients against the server ------------------------------------------------------


def caught(client: str, fault: str, calls: int = 300) -> Run:
    return run(Plan(client, seed=1, calls=calls, workers=12, only=frozenset({fault})))


# So many calls that chance cannot hide it: one in 250 of the tasks' is re-sent.
@pytest.mark.parametrize(
    ("client", "fault", "calls"),
    [("naive", "swallow_second", 300), ("naive-async", "wait_fin", 6000)],
)
def test_a_silent_resend_is_caught(client: str, fault: str, calls: int) -> None:
    finished = caught(client, fault, calls)
    assert finished.verdict.rules["silent-resend"]
    assert f"fault {fault}" in report(finished)


def test_a_poisoned_answer_is_caught() -> None:
    finished = caught("naive", "idle_poison", calls=1500)
    assert finished.verdict.rules["wrong-ids"]
    assert finished.verdict.rules["foreign-code"]


@pytest.mark.parametrize("client", ["naive-async", "naive-async-list"])
def test_an_answer_for_another_call_is_caught(client: str) -> None:
    """That of a call which was cancelled or given up is still to come."""
    finished = caught(client, "late_answer")
    assert finished.verdict.rules["wrong-symbol"]


def test_a_cancelled_call_that_was_sent_is_caught() -> None:
    assert caught("naive-async", "late_answer").verdict.rules["not-sent-but-sent"]


def test_a_list_sent_all_at_once_is_caught() -> None:
    assert caught("naive-async-list", "redirect").verdict.rules["too-fast"]


def test_an_unconfirmed_result_is_caught() -> None:
    assert caught("naive", "redirect").verdict.rules["unconfirmed"]


def test_a_crash_is_caught() -> None:
    finished = caught("crashing", "redirect")
    assert finished.verdict.rules["crash"] == 1
    assert "ended with status -9" in report(finished)


def test_a_careful_client_goes_free() -> None:
    finished = run(Plan("careful", seed=1, calls=1500))
    assert not finished.verdict.violations, report(finished)
    assert finished.verdict.figures.on_used_connections > 750


@pytest.mark.chaos
@pytest.mark.parametrize("face", FACES)
def test_espresso_keeps_its_word(face: str) -> None:
    """20,000 calls over all faces, no violation."""
    calls = CALLS // len(FACES)
    finished = run(Plan(face, FACES[face], calls))
    figures = finished.verdict.figures
    print(report(finished))
    assert not finished.verdict.violations, report(finished)
    assert not finished.undrawn
    assert figures.on_used_connections > calls / 2
    assert figures.confirmed > 0.05 * calls
    assert figures.still_open
    assert (figures.cancelled > 0.005 * calls) is ("async" in face)
    assert (figures.never_tried > 0) is ("list" in face)
    assert (figures.lists > 0.1 * calls) is ("list" in face)
    assert figures.at_once >= (100 if face == "espresso-async" else 16)
