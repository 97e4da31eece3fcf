"""``ESPRESSO_LOOPBACK_ONLY``, as tests set it: what whoever meets it is told.

Loaded with the first refusal; the check itself is in ``_client``, with what else the
environment says.
"""

from . import _client

_IN_A_TEST = (
    "under pytest, ask for the fixture espresso_exchange and make clients after that, "
    "without base_url="
)


def hold(on: bool) -> None:
    """Call nothing but loopback, whatever the environment says: while pytest runs."""
    _client.held_to_loopback = on
    _client._clients.clear()  # they were made under the rule before


def refusal(host: str, environment: _client.Environment) -> str:
    """Why this host may not be called, and what to do."""
    is_set = environment.get(_client.LOOPBACK_VARIABLE) not in (None, "0")
    return (
        f"{_client.LOOPBACK_VARIABLE} {'is' if is_set else 'was'} set, as in tests: "
        f"{host} may not be called; {_IN_A_TEST}, or run with --espresso-allow-live"
    )


def no_key(environment: _client.Environment) -> str:
    """What to do where there is no key; in a test not to give it a real one."""
    text = f"set the environment variable {_client.KEY_VARIABLE} or pass api_key="
    if environment.get(_client.LOOPBACK_VARIABLE) not in (None, "0"):
        text += f"; {_IN_A_TEST}"
    return text
