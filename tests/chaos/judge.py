"""The judge: what the server did to each call against what the client claimed.

Pure functions on records; no network, no clock. Each rule is a sentence of
contract.md turned round, and yields a `Violation` where it finds a claim that
the server's log refutes. Where the log cannot know (a request that was thrown
away unread, an answer that came while the client's time ran out) the client has
the benefit of the doubt; `Figures` then counts how often it was used, so that a
client cannot pass by calling everything unknown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .records import (
    CODES,
    CONNECT_TIMEOUT,
    RATE_CALLS,
    RATE_WINDOW,
    STATUS_CLASSES,
    Claim,
    Note,
    Post,
    ServerLog,
)

SLACK = 0.5
"""Seconds that a call may last beyond its time-out on a busy machine; more for a
client in whose process hundreds of calls wait for the same processor."""
PROMPT = 0.02
"""An answer that the server gave within this many seconds must be believed..."""
ROOM = 0.3
"""... if the call had this many seconds left then."""
FIRST_ATTEMPT = 0.35
"""No attempt can have timed out in a call shorter than this share of its time-out
(the contract gives 0.4 of it to the first attempt, and more to later ones)."""
BLIND_SPREAD = 0.05
"""Seconds between an RST in the server's log and on the wire."""
PACE_DOUBT = 0.5
"""Seconds after which the server may see a request that has left the client."""
LATE_ENTRY = 1.0
"""Seconds by which the server may see bytes of a call that is over."""

BELIEVED_FLOOR = 0.98
BELIEVED_FLOOR_OF_ONE = 0.8
"""The same for the answers of one fault: no kind of answer may be misread."""
FEW = 20
PERSISTED_FLOOR = 0.8
CAUTION_CEILING = 0.1
ENOUGH = 100
"""Shares of fewer cases than this prove nothing."""


@dataclass(frozen=True)
class Violation:
    """A broken rule, and the call it was broken for ("" for the whole run)."""

    rule: str
    id: str
    text: str


@dataclass
class Figures:
    """Counts of one run; `share` of two of them is None for too few cases."""

    calls: int = 0
    posts: int = 0
    on_used_connections: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    delivered_again: int = 0  # calls with more than one POST
    lost_replies: int = 0
    prompt: Counter[str] = field(default_factory=Counter)  # final answers, by fault
    believed: Counter[str] = field(default_factory=Counter)
    chances: int = 0  # calls that had a reason and the time for another attempt
    persisted: int = 0
    unknowns: int = 0
    unfounded: int = 0  # unknown, but the log knows of no request
    lists: int = 0  # calls of several symbols
    confirmed: int = 0  # calls with confirm=True that were proven
    still_open: int = 0
    never_tried: int = 0  # symbols whose turn did not come in time
    cancelled: int = 0  # tasks that were
    at_once: int = 0  # most calls in flight
    worst_overrun: float = float("-inf")


@dataclass
class Verdict:
    violations: list[Violation]
    figures: Figures

    @property
    def rules(self) -> Counter[str]:
        """How often each rule was broken."""
        return Counter(violation.rule for violation in self.violations)


class Evidence:
    """The server's log, indexed for questions about one call."""

    def __init__(self, log: ServerLog, claims: Iterable[Claim] = ()) -> None:
        self.presses: dict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            self.presses[claim.press or claim.id].append(claim)
        self.posts: dict[str, list[Post]] = defaultdict(list)
        for post in log.posts:
            self.posts[post.id].append(post)
        self.notes = log.notes
        self._blind = [note.t for note in log.notes if note.flag == "blind"]

    def of(self, symbol: str) -> list[Post]:
        """The deliveries of a call, in the order in which they arrived."""
        return self.posts.get(symbol, [])

    def flagged(self, flag: str) -> list[Note]:
        return [note for note in self.notes if note.flag == flag]

    def may_lack_one(self, claim: Claim) -> bool:
        """Could a request of this call have been thrown away unread?"""
        first = bisect_left(self._blind, claim.started - BLIND_SPREAD)
        end = claim.started + claim.lasted + BLIND_SPREAD
        return first < len(self._blind) and self._blind[first] <= end

    def attempts_of_press(self, claim: Claim) -> int:
        """Those of all symbols of the call."""
        press = self.presses.get(claim.press or claim.id, [])
        return sum(one.said.attempts or 0 for one in press)


def is_done(post: Post) -> bool:
    return post.whole and post.reading == "done"


def was_lost(claim: Claim, post: Post) -> bool:
    """Can this attempt, not the last of its call, only have ended unknown?

    It was not turned down for certain, and is no round of a confirmed call whose
    answer the client has: then the claim holds its ids.
    """
    if post.certain:
        return False
    is_round = claim.options.confirm and is_done(post)
    return not (is_round and set(post.ids) <= set(claimed_ids(claim)))


def claimed_ids(claim: Claim) -> list[str]:
    """Of the result, or of the rounds before an error; [] if that is no list."""
    result = claim.said.result
    ids = claim.said.order_ids if result is None else result.get("order_ids")
    return list(ids) if isinstance(ids, list | tuple) else []


def any_lost(claim: Claim, posts: Iterable[Post]) -> bool:
    return any(was_lost(claim, post) for post in posts)


# --- rules for every claim -------------------------------------------------------

Rule = Callable[[Claim, Sequence[Post], Evidence], Iterator[Violation]]


def overrun(claim: Claim, posts: Sequence[Post], log: Evidence) -> Iterator[Violation]:
    """It never hangs: one time-out bounds the whole call."""
    over = claim.elapsed - claim.options.timeout
    slack = SLACK * claim.options.patience
    if over > slack:
        yield Violation("overrun", claim.id, f"{over:.3f} s over its time-out")
    cancel_after = claim.options.cancel_after
    if claim.was_cancelled and cancel_after is None:
        yield Violation("cancelled-unasked", claim.id, claim.said.message)
    elif claim.was_cancelled and claim.elapsed - (cancel_after or 0) > slack:
        text = f"ended {claim.elapsed:.3f} s after its start, not at {cancel_after}"
        yield Violation("overrun", claim.id, text)


def too_many_posts(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """One attempt is one POST, and attempts is always the true number."""
    a_round = 1 + claim.options.max_retries
    rounds = _rounds(claim, posts)
    most = a_round * len(rounds)
    attempts = None if claim.was_cancelled else claim.said.attempts
    if attempts is not None and len(posts) > attempts:
        text = f"{len(posts)} POSTs were seen, {attempts} attempts claimed"
        yield Violation("silent-resend", claim.id, text)
    if (longest := max(map(len, rounds))) > a_round:
        text = f"{longest} POSTs in a round with max_retries={a_round - 1}"
        yield Violation("too-many-posts", claim.id, text)
    if attempts is not None and attempts > most:
        text = f"{attempts} attempts, {len(rounds)} rounds, max_retries={a_round - 1}"
        yield Violation("too-many-attempts", claim.id, text)


def _rounds(claim: Claim, posts: Sequence[Post]) -> list[list[Post]]:
    """The deliveries by round; only a confirmed call has more than one.

    Whether the client has seen the answer that ends a round is not asked: without
    it there are fewer and longer ones, which keep the same limits.
    """
    rounds: list[list[Post]] = [[]]
    for post in posts:
        rounds[-1].append(post)
        if claim.options.confirm and is_done(post):
            rounds.append([])
    return rounds


# --- rules for a result ----------------------------------------------------------


def done_unanswered(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """It never says "cancelled" when the exchange did not."""
    last = posts[-1] if posts else None
    if last is None or not last.whole or last.reading not in {"done", "missing"}:
        worth = "no POST" if last is None else _worth(last)
        text = f"claimed done, but the server's last word was: {worth}"
        yield Violation("done-unanswered", claim.id, text)
    elif last.reading == "missing" and not _may_read_missing_as_done(claim, posts, log):
        text = "a plain first 4200 was returned as success"
        yield Violation("missing-as-done", claim.id, text)
    elif last.reading == "done" and claim.options.confirm:
        text = "confirm=True, but the last answer does not say that nothing is open"
        yield Violation("unconfirmed", claim.id, text)


def _may_read_missing_as_done(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> bool:
    asked = claim.options.missing_ok or claim.options.confirm
    return asked or _may_have_lost_a_reply(claim, posts, log)


def _may_have_lost_a_reply(claim: Claim, posts: Sequence[Post], log: Evidence) -> bool:
    """Can an attempt before the last one have ended unknown?"""
    if claim.options.max_retries == 0:
        return False
    timed_out = claim.lasted >= FIRST_ATTEMPT * claim.options.timeout
    # Nobody can tell whether an answer without ids was counted as a round.
    rounds = claim.options.confirm and any(is_done(p) and not p.ids for p in posts)
    lost = any_lost(claim, posts[:-1]) or log.may_lack_one(claim)
    return lost or timed_out or rounds


def result_is_the_answer(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """An exact dict with the symbol and the very ids of the answer."""
    result = claim.said.result or {}
    ids = result.get("order_ids")
    if str(result.get("symbol")).lower() != claim.id.lower():
        yield Violation("wrong-symbol", claim.id, f"named {result.get('symbol')!r}")
    if not isinstance(ids, list):
        yield Violation("wrong-ids", claim.id, f"claimed ids {ids!r}")
    elif claim.options.confirm:
        yield from rounds_are_the_answers(claim, posts, log)
    elif posts and tuple(ids) != posts[-1].ids:
        text = f"claimed ids {ids!r}, the last answer held {list(posts[-1].ids)!r}"
        yield Violation("wrong-ids", claim.id, text)


def rounds_are_the_answers(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """The ids are those of the rounds, in their order, each of them whole.

    A round that is missing is a lost reply; `any_lost` then asks for its mark.
    """
    ids, place = tuple(claimed_ids(claim)), 0
    for post in filter(is_done, posts):
        if ids[place : place + len(post.ids)] == post.ids:
            place += len(post.ids)
    if place < len(ids):
        answered = [list(post.ids) for post in posts if is_done(post)]
        text = f"claimed ids {list(ids)}, the rounds were answered {answered}"
        yield Violation("wrong-ids", claim.id, text)


def lost_reply_rule(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """`lost_reply` is there after an unknown attempt, and only then."""
    result = claim.said.result or {}
    if "lost_reply" in result and result["lost_reply"] is not True:
        text = f"lost_reply is {result['lost_reply']!r}"
        yield Violation("lost-reply-not-true", claim.id, text)
    if "lost_reply" in result and not _may_have_lost_a_reply(claim, posts, log):
        text = "lost_reply, but no earlier attempt can have been unknown"
        yield Violation("lost-reply-unfounded", claim.id, text)
    if "lost_reply" not in result and any_lost(claim, posts[:-1]):
        text = "no lost_reply, but an earlier POST was not turned down for certain"
        yield Violation("lost-reply-missing", claim.id, text)


# --- rules for an error ----------------------------------------------------------


def of_the_contract(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """Every exception is one of the contract, with its attributes."""
    said = claim.said
    outcomes = {"not_sent", "rejected", "unknown"}
    known = said.outcome in (outcomes | {"done"} if claim.was_cancelled else outcomes)
    has_ids = bool(said.order_ids) and not claim.options.confirm
    if not known or said.attempts is None or has_ids:
        text = f"{said.error}: {said.message} (ids {list(said.order_ids)})"
        yield Violation("foreign-exception", claim.id, text)
        return
    if claim.options.confirm:
        yield from rounds_are_the_answers(claim, posts, log)
    by_class = {"ConnectError": "not_sent", "ConnectionLostError": "unknown"}
    by_class["StillOpenError"] = "unknown"
    wanted = by_class.get(said.error or "", said.outcome)
    if said.attempts == 1 and said.outcome != wanted:
        text = f"{said.error} with outcome {said.outcome} after one attempt"
        yield Violation("wrong-outcome", claim.id, text)


def never_tried(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """Only a symbol of a long list may end without an attempt, and only as late."""
    said = claim.said
    if said.attempts != 0 or claim.was_cancelled:
        return
    if (said.error, said.outcome) != ("RequestTimeoutError", "not_sent"):
        yield Violation("never-tried", claim.id, f"no attempt, but {said.error}")
    elif log.attempts_of_press(claim) < RATE_CALLS:
        text = f"no attempt, with {log.attempts_of_press(claim)} in the whole call"
        yield Violation("never-tried", claim.id, text)


def still_open(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """`StillOpenError` if, and only if, the last answer was a 200 with ids and the
    time was over, or no POST was left of those that a call may make in it."""
    said = claim.said
    ended_with_orders = bool(posts) and is_done(posts[-1]) and bool(posts[-1].ids)
    left = claim.options.timeout - claim.lasted
    # The contract: an attempt needs twice the client's last connect time. On a loop
    # that is late, a connect may have taken longer than it was allowed.
    slowest = max(CONNECT_TIMEOUT * claim.options.patience, said.connect)
    least = 2 * slowest + PROMPT
    crowded = log.attempts_of_press(claim) >= RATE_CALLS
    if said.error == "StillOpenError":
        if not claim.options.confirm or not ended_with_orders:
            worth = _worth(posts[-1]) if posts else "no POST"
            text = f"StillOpenError, but the last word was: {worth}"
            yield Violation("still-open-unfounded", claim.id, text)
        elif left > least and not crowded:
            text = f"StillOpenError with {left:.3f} s left"
            yield Violation("still-open-early", claim.id, text)
    elif (
        claim.options.confirm
        and not claim.was_cancelled
        and ended_with_orders
        and said.attempts == len(posts)
        and not was_lost(claim, posts[-1])
    ):
        text = f"{said.error}, but the last attempt cancelled orders"
        yield Violation("still-open-missed", claim.id, text)


def done_when_cancelled(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """The note on a CancelledError may say that the request was carried out."""
    answered = any(p.whole and p.reading in {"done", "missing"} for p in posts)
    if claim.said.outcome == "done" and not answered:
        yield Violation("done-unanswered", claim.id, "the note says it was done")


def not_sent_but_sent(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """It never says "not sent" when it may have been."""
    if claim.said.outcome == "not_sent" and posts:
        text = f"claimed not_sent, {len(posts)} POSTs were seen"
        yield Violation("not-sent-but-sent", claim.id, text)


def rejected_but_open(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """Rejected means that every delivered attempt was turned down for certain."""
    if claim.said.outcome != "rejected":
        return
    if not posts:
        text = "claimed rejected, but no POST was seen"
        yield Violation("rejected-unanswered", claim.id, text)
    if (open_post := next((p for p in posts if was_lost(claim, p)), None)) is not None:
        text = f"claimed rejected, but one POST ended in: {_worth(open_post)}"
        yield Violation("rejected-but-open", claim.id, text)


def foreign_answer(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """Code and status are those of an answer to this very call."""
    said = claim.said
    if said.code is not None and all(said.code != p.code for p in posts if p.whole):
        text = f"claimed code {said.code}, never sent for this call"
        yield Violation("foreign-code", claim.id, text)
    elif not posts and said.code is not None:
        yield Violation("foreign-code", claim.id, f"code {said.code} without a POST")
    if said.code in CODES and said.error != CODES[said.code][1]:
        text = f"code {said.code} raised as {said.error}"
        yield Violation("wrong-class", claim.id, text)
    statuses = {status for post in posts for status in post.statuses}
    if said.status is not None and said.status not in statuses:
        text = f"claimed status {said.status}, sent were {sorted(statuses)}"
        yield Violation("foreign-status", claim.id, text)


def missing_raised(
    claim: Claim, posts: Sequence[Post], log: Evidence
) -> Iterator[Violation]:
    """4200 is a success with missing_ok, confirm and after an unknown attempt."""
    if claim.said.code != 4200:
        return
    if claim.options.missing_ok or claim.options.confirm:
        yield Violation("missing-raised", claim.id, "4200 in spite of missing_ok")
    if any_lost(claim, posts[:-1]):
        text = "4200 was raised although an earlier POST may have done it"
        yield Violation("lost-reply-ignored", claim.id, text)


ALL_RULES: tuple[Rule, ...] = (overrun, too_many_posts)
RESULT_RULES: tuple[Rule, ...] = (
    done_unanswered,
    result_is_the_answer,
    lost_reply_rule,
)
ERROR_RULES: tuple[Rule, ...] = (
    of_the_contract,
    never_tried,
    still_open,
    done_when_cancelled,
    not_sent_but_sent,
    rejected_but_open,
    foreign_answer,
    missing_raised,
)


def _worth(post: Post) -> str:
    whole = "answered whole" if post.whole else "not answered whole"
    return f"{post.reading} ({whole}, fault {post.fault or 'none'})"


def check(claim: Claim, log: Evidence) -> list[Violation]:
    """All violations of one claim."""
    posts = log.of(claim.id)
    rules = RESULT_RULES if claim.said.result is not None else ERROR_RULES
    return [found for rule in (*ALL_RULES, *rules) for found in rule(claim, posts, log)]


# --- the run as a whole ----------------------------------------------------------


def judge(
    claims: Sequence[Claim], log: ServerLog, calls: int, died: str = ""
) -> Verdict:
    """Judge a run of ``calls`` calls.

    ``died`` says how the client's process ended if that was not in order.
    """
    evidence = Evidence(log, claims)
    violations = [found for claim in claims for found in check(claim, evidence)]
    violations += _lost_calls(claims, evidence, calls, died)
    violations += _too_fast(evidence)
    violations += _odd_requests(claims, evidence)
    figures = count(claims, evidence)
    violations += timid(figures)
    return Verdict(violations, figures)


def _lost_calls(
    claims: Sequence[Claim], log: Evidence, calls: int, died: str
) -> Iterator[Violation]:
    """It never takes the interpreter down, and every call ends."""
    if died:
        yield Violation("crash", "", f"the client's process {died}")
    if len(claims) != calls:
        text = f"{calls} calls were made, {len(claims)} ended"
        yield Violation("never-ended", "", text)
    known = {claim.id for claim in claims}
    for symbol in log.posts.keys() - known:
        yield Violation("never-ended", symbol, "delivered, but the call never ended")


def _too_fast(log: Evidence) -> Iterator[Violation]:
    """At most 10 POSTs of one call start within 2 s, whatever their symbols."""
    for first, claims in log.presses.items():
        times = sorted(post.t for claim in claims for post in log.of(claim.id))
        for early, late in zip(times, times[RATE_CALLS:], strict=False):
            if late - early < RATE_WINDOW - PACE_DOUBT:
                text = f"{RATE_CALLS + 1} POSTs of one call in {late - early:.3f} s"
                yield Violation("too-fast", first, text)
                break


def _odd_requests(claims: Sequence[Claim], log: Evidence) -> Iterator[Violation]:
    for note in log.flagged("malformed"):
        text = f"a malformed request on connection {note.conn}"
        yield Violation("malformed-request", "", text)
    for note in log.flagged("orphan"):
        if not any(_may_own(claim, note) for claim in claims):
            text = (
                f"bytes of a request on connection {note.conn}, but every call "
                "of that moment claims that nothing was sent"
            )
            yield Violation("not-sent-but-sent", "", text)


def _may_own(claim: Claim, orphan: Note) -> bool:
    late = orphan.t - claim.started
    running = 0 <= late <= claim.elapsed + LATE_ENTRY
    return running and claim.said.outcome != "not_sent"


def count(claims: Sequence[Claim], log: Evidence) -> Figures:
    """Everything that is printed and the shares that `timid` looks at."""
    figures = Figures(calls=len(claims))
    for posts in log.posts.values():
        figures.posts += len(posts)
        figures.delivered_again += len(posts) > 1
        figures.on_used_connections += sum(post.nth > 1 for post in posts)
        figures.faults.update(post.fault for post in posts)
    figures.faults.update(
        note.fault for note in log.notes if note.fault not in {"", "swallow_second"}
    )
    for claim in claims:
        _count_claim(figures, claim, log)
    figures.lists = sum(len(press) > 1 for press in log.presses.values())
    figures.at_once = _most_at_once(press[0] for press in log.presses.values())
    return figures


def _most_at_once(calls: Iterable[Claim]) -> int:
    """How many of these calls were in flight at the same time, at most."""
    moments = []
    for call in calls:
        moments += [(call.started, 1), (call.started + call.elapsed, -1)]
    most = now = 0
    for _, change in sorted(moments):
        now += change
        most = max(most, now)
    return most


def _count_claim(figures: Figures, claim: Claim, log: Evidence) -> None:
    said, posts = claim.said, log.of(claim.id)
    over = claim.elapsed - claim.options.timeout
    figures.worst_overrun = max(figures.worst_overrun, over)
    done = said.result is not None
    figures.outcomes["done" if done else said.outcome or "none"] += 1
    if done:
        figures.lost_replies += "lost_reply" in (said.result or {})
        figures.confirmed += claim.options.confirm
    else:
        figures.errors[said.error or "?"] += 1
        figures.still_open += said.error == "StillOpenError"
        figures.never_tried += said.attempts == 0 and not claim.was_cancelled
        figures.cancelled += claim.was_cancelled
    if said.outcome == "unknown":
        figures.unknowns += 1
        figures.unfounded += not posts and not log.may_lack_one(claim)
    for post in posts:
        if _must_be_believed(claim, post):
            figures.prompt[post.fault] += 1
            if _is_believed(claim, post, is_last=post is posts[-1]):
                figures.believed[post.fault] += 1
    crowded = log.attempts_of_press(claim) >= RATE_CALLS
    if had_a_chance := not crowded and _had_a_chance(claim, posts):
        figures.chances += had_a_chance
        figures.persisted += len(posts) > 1 or (said.attempts or 0) > 1


def _must_be_believed(claim: Claim, post: Post) -> bool:
    """A final answer, given at once, whole, and long before the deadline."""
    deadline = claim.started + claim.options.timeout
    return (
        not claim.was_cancelled
        and post.whole
        and post.reading in {"done", "missing", "refused", "odd"}
        and post.end != "rst"
        and post.t_whole - post.t < PROMPT
        and post.t_whole < deadline - ROOM
        and post.t - claim.started < PROMPT
    )


def _is_believed(claim: Claim, post: Post, *, is_last: bool) -> bool:
    said = claim.said
    if claim.options.confirm and post.reading == "done":
        return not was_lost(claim, post)
    if not is_last:
        return False
    if post.reading == "done" or (post.reading == "missing" and said.result):
        return said.result is not None
    wanted = _class_of(post)
    outcome = "unknown" if post.reading == "odd" else said.outcome
    return (
        said.result is None
        and said.status == post.statuses[-1]
        and said.code == post.code
        and said.outcome == outcome
        and wanted in {"", said.error}
    )


def _class_of(post: Post) -> str:
    """The exception class of an answer, "" where a family decides."""
    if post.code is not None:
        return CODES[post.code][1] if post.code in CODES else ""
    status = post.statuses[-1]
    return "ResponseError" if status < 400 else STATUS_CLASSES.get(status, "")


def _had_a_chance(claim: Claim, posts: Sequence[Post]) -> bool:
    """The first attempt ended at once in what the contract tries again."""
    if not posts or claim.options.max_retries == 0 or claim.options.timeout < 0.6:
        return False
    if claim.was_cancelled:
        return False
    first = posts[0]
    prompt = first.t - claim.started < PROMPT
    dead = first.end in {"fin", "notify", "rst"} and not first.whole
    asked_again = first.whole and first.reading == "again"
    quick = first.fault != "endless_1xx" and (dead or asked_again)
    return prompt and quick


def timid(figures: Figures) -> Iterator[Violation]:
    """A client that believes nothing and tries nothing keeps every other rule."""
    believed = _share(figures.believed.total(), figures.prompt.total())
    if believed is not None and believed < BELIEVED_FLOOR:
        text = f"only {believed:.1%} of the prompt final answers were believed"
        yield Violation("deaf", "", text)
    for fault, answers in figures.prompt.items():
        if answers >= FEW and figures.believed[fault] < BELIEVED_FLOOR_OF_ONE * answers:
            text = f"{figures.believed[fault]} of {answers} believed with {fault}"
            yield Violation("deaf", "", text)
    persisted = _share(figures.persisted, figures.chances)
    if persisted is not None and persisted < PERSISTED_FLOOR:
        text = f"only {persisted:.1%} of the lost attempts were tried again"
        yield Violation("gives-up", "", text)
    unfounded = _share(figures.unfounded, figures.unknowns)
    if unfounded is not None and unfounded > CAUTION_CEILING:
        text = f"{unfounded:.1%} of the unknown outcomes are calls never delivered"
        yield Violation("over-cautious", "", text)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole >= ENOUGH else None
