"""An exchange to practise and test on: stateful, over real TLS, on loopback.

Needs the extra: ``pip install "espresso-deltadefi[sandbox]"``::

    from espresso.sandbox import Exchange

    with Exchange() as ex:
        ex.place("ADAUSDM", 3)
        ex.fault("envoy_503", times=2)
        client = espresso.Client(ex.key, base_url=ex.url, ca_file=ex.ca_file)
        client.cancel_all("ADAUSDM")
        assert [call.status for call in ex.calls] == [503, 503, 200]

`FAULTS` has every named fault, `replies` the raw answers; ``openapi.yaml`` beside this
file describes the operation.
"""

from __future__ import annotations

try:
    from . import replies
    from .book import Call
    from .exchange import Exchange
    from .faults import FAULTS
except ModuleNotFoundError as _error:
    if _error.name not in ("h11", "trustme"):
        raise
    raise ImportError(
        f"espresso.sandbox needs {_error.name}, which is not installed: "
        'pip install "espresso-deltadefi[sandbox]"',
        name=_error.name,
    ) from _error

__all__ = ["FAULTS", "Call", "Exchange", "replies"]
