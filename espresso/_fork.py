"""The child of a fork, and the imports that were under way in other threads.

Python guards each import by a lock, and gives a child the locks as they were. What a
thread was importing at the fork could never be imported in the child: a call there that
has something to tell (`_watch`, `_types`, and the modules that they need) would wait
for ever.
"""

import sys
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Whose modules are ours to start anew: what we import ourselves.
_OURS = sys.stdlib_module_names | {__package__, "certifi"}


def forget_imports_of_others(locks: "dict[str, Callable[[], Any]]") -> None:
    """Let what another thread was importing be imported from the start.

    That thread is not there, nor is anybody who has seen the unfinished module.

    locks: those of importlib, a weak reference for each module being imported
    """
    for name in list(locks):
        lock = locks[name]()
        is_ours = name.partition(".")[0] in _OURS
        if lock is None or lock.owner == get_ident() or not is_ours:
            continue
        locks.pop(name, None)
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            del sys.modules[name]
