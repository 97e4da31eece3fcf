"""A guard in an event loop: its work beside the loop, its beats from within."""

from __future__ import annotations

import asyncio
import threading

from .errors import GuardError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_BEATS = 4  # so many a heartbeat


async def beside_the_loop(work: Callable[[], object]) -> BaseException | None:
    """Run it in a thread and wait for its end, whatever comes.

    The last cancellation that came meanwhile, for the caller to deliver. Raises
    what the work raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
        loop.call_soon_threadsafe(done.set_result, None)

    # Not the loop's own pool: its threads are waited for at the end of asyncio.run.
    threading.Thread(target=run, name="espresso-guard-work", daemon=True).start()
    cancelled: BaseException | None = None
    while not done.done():
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError as error:
            cancelled = error
    if errors:
        raise errors[0]
    return cancelled


def require_loop() -> None:
    """Raises RuntimeError outside a running loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "auto_beat beats from a running event loop: use 'async with'"
        ) from None


class Beater:
    """Beats from the running loop, as long as it turns and the guard is armed."""

    def __init__(self, beat: Callable[[], None], heartbeat: float) -> None:
        self._beat = beat
        self._pause = heartbeat / _BEATS
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._turn()

    def _turn(self) -> None:
        try:
            self._beat()
        except GuardError:
            return
        self._timer = self._loop.call_later(self._pause, self._turn)

    def stop(self) -> None:
        """From any thread: the next beat finds the guard left, and is the last."""
        timer = self._timer
        if timer is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(timer.cancel)
