"""Press the button against a sandbox, with the espresso that pip installed.

For places that cannot have the repository's tests: ``python -I smoke.py``. Exit
status 0 only if the orders of one call over TLS were cancelled, by the libraries
that the wheel brings, and a server that is not trusted was refused.
"""

import platform
import sys
import sysconfig

import espresso
from espresso.sandbox import Exchange

ORDERS = 3


def press() -> None:
    """Cancel over TLS; be refused where the root is not known."""
    with Exchange(orders={"ADAUSDM": ORDERS}) as exchange:
        with espresso.Client(
            exchange.key, base_url=exchange.url, ca_file=exchange.ca_file
        ) as client:
            said = client.cancel_all("ADAUSDM")
        assert len(said["order_ids"]) == ORDERS, said
        try:
            espresso.Client(exchange.key, base_url=exchange.url).cancel_all("ADAUSDM")
        except espresso.CertificateError as error:
            print(error)
        else:
            raise AssertionError("a stranger's certificate was trusted")


def gil_is_as_it_was() -> bool:
    """Tell whether a free-threaded interpreter still is one."""
    free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    return not free or not getattr(sys, "_is_gil_enabled", lambda: False)()


if __name__ == "__main__":
    press()
    assert gil_is_as_it_was(), "the import switched the GIL on"
    print(platform.platform(), platform.python_version(), espresso.__versions__)
