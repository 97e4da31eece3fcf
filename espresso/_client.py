"""Options and the environment; the call itself is C (``_core.Client``).

Everything the environment can say is read here and nowhere else, once for
each client and once for each module-level call, so that the core gets
explicit values and one call never mixes two states of the environment.
"""

import os

from . import _core
from .errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ._guard import Guard
    from ._sealed import Sealed
    from ._types import Event

KEY_VARIABLE = "DELTADEFI_API_KEY"  # [field]: every SDK of the exchange
URL_VARIABLE = "DELTADEFI_BASE_URL"
LOOPBACK_VARIABLE = "ESPRESSO_LOOPBACK_ONLY"
LOG_FILE_VARIABLE = "ESPRESSO_LOG_FILE"
LOG_VARIABLES = ("ESPRESSO_LOG", LOG_FILE_VARIABLE)
# The small letters come first, as in curl.
PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
NO_PROXY_VARIABLES = ("no_proxy", "NO_PROXY")
TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR")

# All that decides which client serves a module-level call, but the key.
_SNAPSHOT_VARIABLES = (
    URL_VARIABLE,
    LOOPBACK_VARIABLE,
    *PROXY_VARIABLES,
    *NO_PROXY_VARIABLES,
    *TRUST_VARIABLES,
)

TIMEOUT = 10.0
CONNECT_TIMEOUT = 2.0
MAX_RETRIES = 2
USER_AGENT = f"espresso-deltadefi/{_core.__version__}"

# The names as os.environ holds them: bytes on every system we run on.
_RAW_NAMES = tuple(os.fsencode(name) for name in _SNAPSHOT_VARIABLES)

# Clients kept for the `base_url=` of module-level calls.
KEPT_CLIENTS = 8

# Set when espresso is loaded, as under pytest, it holds for good: a test that clears
# its environment must not reach the live exchange.
held_to_loopback = os.environ.get(LOOPBACK_VARIABLE) not in (None, "", "0")


class Options(_core.BaseClient):
    """The options of both clients, and where the environment fills them in."""

    _origin: "Origin | None" = None  # not made yet

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = TIMEOUT,
        attempt_timeout: float | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_retries: int = MAX_RETRIES,
        proxy: str | None = None,
        trust_env: bool = True,
        ca_file: str | os.PathLike[str] | None = None,
        on_event: "Callable[[Event], object] | None" = None,
    ) -> None:
        try:
            if on_event is not None and not callable(on_event):
                raise TypeError(
                    f"on_event must be callable, not {type(on_event).__name__}"
                )
            where = _destination(
                Environment(),
                base_url,
                proxy=Hidden(proxy),
                ca_file=None if ca_file is None else os.fsdecode(ca_file),
                trust_env=trust_env,
            )
            super().__init__(
                key=None if api_key is None else _core.Key(api_key),
                key_source=key_from_environment,
                timeout=timeout,
                attempt_timeout=attempt_timeout,
                connect_timeout=connect_timeout,
                max_retries=max_retries,
                on_event=on_event,
                user_agent=USER_AGENT,
                **where.options(),
            )
            self._origin = Origin.of(where, api_key, connect_timeout, on_event)
        finally:
            # Tracebacks that print locals must show neither key nor password.
            del api_key, proxy

    def guard(self, symbol: "str | Iterable[str]", **options: "Any") -> "Guard":
        """A guard that works with this client's key and options.

        The same as ``espresso.guard``, which see: ``with client.guard("ADAUSDM"):``.
        The guard has a connection of its own, and outlives a ``close()``.

        symbol: str, or an iterable of them
        options: heartbeat, auto_beat, at_start, when, watchdog, timeout

        Raises what ``espresso.guard`` does, and RuntimeError for a closed client.
        """
        from ._guard import Guard

        if self.closed or self._origin is None:
            raise RuntimeError("the client is closed")
        return Guard(symbol, origin=self._origin, **options)

    def _wipe(self) -> None:
        """Forget the secrets that guards are made with."""
        if self._origin is not None:
            self._origin.wipe()

    def __repr__(self) -> str:
        if not self._is_ready:  # a traceback that prints locals may ask
            return f"<espresso.{type(self).__name__} that was never made>"
        has_key = self._has_own_key or bool(os.environ.get(KEY_VARIABLE))
        closed = " closed" if self.closed else ""
        return (
            f"<espresso.{type(self).__name__} {self.base_url} "
            f"key={'set' if has_key else 'missing'} timeout={self.timeout}{closed}>"
        )


class Client(Options, _core.Client):
    """A set of options, and warm connections to one exchange.

    Serves any number of threads, and both sides of a ``fork``. The
    constructor opens no connection and does not miss an absent key; the call
    does.

    api_key: the account's key; None: ``DELTADEFI_API_KEY``, read at each call
    base_url: the exchange; None: ``DELTADEFI_BASE_URL`` (MAINNET, PREPROD or
        loopback), else MAINNET. https, or http to loopback
    timeout: seconds for a whole call, name look-up, attempts and waits
        included; positive, at most 86400; rounded up to 1 ms
    attempt_timeout: seconds for each attempt; None: 0.4 of the timeout for
        the first, the rest for a later one
    connect_timeout: seconds for DNS, TCP, proxy and TLS of an attempt
    max_retries: attempts after the first; each is one POST at most
    proxy: a proxy's URL; None: ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``.
        Loopback never goes through one
    trust_env: False ignores proxies and trust stores of the environment
    ca_file: a file or hashed directory of the roots to trust; None:
        ``SSL_CERT_FILE``, ``SSL_CERT_DIR``, the system's, certifi's
    on_event: called with an ``Event`` after each attempt

    Raises ConfigError (a ValueError) for a key, URL or proxy that cannot be
    used, TypeError and ValueError for other arguments.
    """

    def close(self, /) -> None:
        """Close the connections and wipe the key.

        Calls in flight end with ConnectionLostError or ConnectError, later ones are
        RuntimeError. Closing twice is fine. A guard of this client stays armed.
        """
        super().close()
        self._wipe()

    close.__annotations__.clear()  # so that help() shows it as it shows the others

    def __exit__(self, *error: object) -> None:
        self.close()


# ---- The process-wide clients ---------------------------------------------

# base_url as given (None: the default client) -> the environment it was made
# from, and the client. Needs no lock, which a fork could leave held: two threads
# that race make two clients, of which one is forgotten.
_clients: "dict[str | None, tuple[Environment, _core.Client]]" = {}


def client_for(
    api_key: str | None, base_url: str | None
) -> tuple[_core.Client, _core.Key]:
    """The client and key of a module-level call, by one look at the
    environment."""
    try:
        if not isinstance(base_url, str | None):
            raise TypeError(f"base_url must be str, not {type(base_url).__name__}")
        environment = Environment()
        key = key_from_environment() if api_key is None else _core.Key(api_key)
        known = _clients.get(base_url)
        if known is not None and known[0].values == environment.values:
            return known[1], key
        return _replace(base_url, environment), key
    finally:
        del api_key


_core.client_for = client_for  # where the C half looks for it


def _replace(base_url: str | None, environment: "Environment") -> _core.Client:
    """Make a client for this environment; the one it replaces ends with its last
    call."""
    client = _core.Client(
        key=None,
        key_source=key_from_environment,
        timeout=TIMEOUT,
        attempt_timeout=None,
        connect_timeout=CONNECT_TIMEOUT,
        max_retries=MAX_RETRIES,
        on_event=None,
        user_agent=USER_AGENT,
        **_destination(environment, base_url).options(),
    )
    _clients.pop(base_url, None)
    _clients[base_url] = environment, client
    named = [url for url in list(_clients) if url is not None]
    for url in named[:-KEPT_CLIENTS]:
        _clients.pop(url, None)
    return client


# ---- What the environment says --------------------------------------------


class Hidden:
    """A text that tracebacks with locals do not show: a proxy's URL may hold a
    password."""

    __slots__ = ("value",)

    def __init__(self, value: str | None) -> None:
        self.value: str | None = value


class Destination:
    """Where requests go, and how; no repr shows the proxy."""

    __slots__ = ("base_url", "ca_path", "no_proxy", "proxy")

    def __init__(
        self,
        base_url: str,
        proxy: "Hidden | None",
        no_proxy: str | None,
        ca_path: str | None,
    ) -> None:
        self.base_url: str = base_url
        self.proxy: Hidden | None = proxy
        self.no_proxy: str | None = no_proxy
        self.ca_path: str | None = ca_path

    def options(self) -> dict[str, str | None]:
        """As `_core.Client` takes them. Not to be kept in a local."""
        return {
            "base_url": self.base_url,
            "proxy": None if self.proxy is None else self.proxy.value,
            "no_proxy": self.no_proxy,
            "ca_path": self.ca_path,
        }


class Origin:
    """What a client was made from: a guard makes its own, here and in its
    watchdog."""

    __slots__ = ("on_event", "options", "sealed")

    def __init__(
        self,
        options: "dict[str, Any]",
        sealed: "Sealed | None",
        on_event: "Callable[[Event], object] | None" = None,
    ) -> None:
        self.options: dict[str, Any] = options
        self.sealed: Sealed | None = sealed
        self.on_event: Callable[[Event], object] | None = on_event

    @classmethod
    def of(
        cls,
        where: Destination,
        api_key: str | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        on_event: "Callable[[Event], object] | None" = None,
    ) -> "Origin":
        try:
            options = {
                "base_url": where.base_url,
                "no_proxy": where.no_proxy,
                "ca_path": where.ca_path,
                "connect_timeout": connect_timeout,
                "user_agent": USER_AGENT,
            }
            hidden = where.proxy or Hidden(None)
            if api_key is None and hidden.value is None:
                return cls(options, None, on_event)
            from ._sealed import Sealed  # only who has secrets waits for it

            return cls(options, Sealed(api_key, hidden.value), on_event)
        finally:
            del api_key

    def for_guard(self) -> "Origin":
        """One of the guard's own, with the key of the environment if it has none.

        Raises ConfigError if there is no key at all.
        """
        from ._sealed import Sealed

        sealed = self.sealed or Sealed(None, None)
        if not sealed.has_key:
            key_from_environment()
        # Resolved: guard and watchdog trust the same roots, whatever becomes of the
        # environment.
        trust = self.options["ca_path"] or _core.system_trust()
        return Origin(
            self.options | {"ca_path": trust},
            sealed.copy(KEY_VARIABLE),
            self.on_event,
        )

    def wipe(self) -> None:
        if self.sealed is not None:
            self.sealed.forget()

    def client(self, timeout: float) -> _core.Client:
        """A client for a guard; like what follows, of one made by `for_guard`."""
        assert self.sealed is not None
        return self.sealed.client(
            **self.options,
            timeout=timeout,
            attempt_timeout=None,
            max_retries=MAX_RETRIES,
            on_event=self.on_event,
        )

    def account(self) -> str:
        """A name for the account at this exchange."""
        assert self.sealed is not None
        return self.sealed.account(self.options["base_url"])


def origin_of_environment() -> Origin:
    """What the environment says now."""
    return Origin.of(_destination(Environment(), None))


class Environment:
    """What the environment says now of where calls go; no repr shows it.

    os.environ.get raises and catches a KeyError for each name that is absent,
    which for these names would cost as much as the call itself: hence the look
    beneath it.
    """

    __slots__ = ("values",)

    def __init__(self) -> None:
        raw = getattr(os.environ, "_data", None)
        self.values: tuple[str | bytes | None, ...] = (
            tuple(map(raw.get, _RAW_NAMES))
            if raw is not None
            else tuple(map(os.environ.get, _SNAPSHOT_VARIABLES))
        )
        del raw  # it holds the key, and an interrupt may come at any line

    def get(self, *names: str) -> str | None:
        """The first of these that is set; None if it is empty."""
        values = zip(_SNAPSHOT_VARIABLES, self.values, strict=True)
        found = {name: value for name, value in values if value is not None}
        name = next((name for name in names if name in found), None)
        return None if name is None else os.fsdecode(found[name]) or None


def key_from_environment() -> _core.Key:
    """The key of ``DELTADEFI_API_KEY``; raises ConfigError that names it.

    The text is never a local here: tracebacks that print locals would show it.
    """
    try:
        return _core.Key(os.environ.get(KEY_VARIABLE) or "")
    except ConfigError as error:
        if os.environ.get(KEY_VARIABLE):
            raise ConfigError(f"{KEY_VARIABLE}: {error}") from None
        from ._loopback import no_key

        raise ConfigError(f"no API key: {no_key(Environment())}") from None


def _destination(
    environment: "Environment",
    base_url: str | None,
    *,
    proxy: "Hidden | None" = None,
    ca_file: str | None = None,
    trust_env: bool = True,
) -> Destination:
    """Where requests go: what was passed, and else what the environment says."""
    if base_url is None:
        base_url = _base_url_from(environment)
    base_url = checked_url(environment, base_url)
    if ca_file is None and trust_env:
        ca_file = _ca_path_from(environment)
    if ca_file is None:
        ca_file = _ca_path_of_system()
    asks_environment = trust_env and (proxy is None or proxy.value is None)
    if asks_environment:
        proxy = Hidden(environment.get(*PROXY_VARIABLES))
    return Destination(
        base_url,
        proxy,
        environment.get(*NO_PROXY_VARIABLES) if asks_environment else None,
        # Absolute, because a daemon changes its directory before it calls.
        os.path.abspath(ca_file) if ca_file else ca_file,
    )


def checked_url(environment: "Environment", text: str) -> str:
    """A base URL, normalised; raises ConfigError for one that may not be called."""
    url, host, is_loopback = _core.parse_base_url(text)
    is_set = environment.get(LOOPBACK_VARIABLE) not in (None, "0")
    if not is_loopback and (is_set or held_to_loopback):
        from ._loopback import refusal

        raise ConfigError(refusal(host, environment))
    return url


def base_url_from(environment: "Environment") -> str:
    """The exchange that the environment names, else MAINNET.

    Raises ConfigError if it names one that it may not name.
    """
    text = environment.get(URL_VARIABLE)
    if text is None:
        return _core.MAINNET
    try:
        url, _, is_loopback = _core.parse_base_url(text)
    except ConfigError as error:
        raise ConfigError(f"{URL_VARIABLE}: {error}") from None
    if not is_loopback and url not in (_core.MAINNET, _core.PREPROD):
        raise ConfigError(
            f"{URL_VARIABLE} may name only espresso.MAINNET, espresso.PREPROD or "
            "loopback; pass base_url= for another host"
        )
    return url


def _base_url_from(environment: "Environment") -> str:
    """The same, for a caller who does not say where it goes."""
    url = base_url_from(environment)
    if url != _core.MAINNET:
        from . import _watch

        _watch.other_host(URL_VARIABLE, url)
    return url


def trust_store(environment: "Environment") -> tuple[str | None, str]:
    """The roots that a call would trust, and who names them; what `_destination`
    decides, in words."""
    path = _ca_path_from(environment)
    if path is not None:
        in_file = environment.get("SSL_CERT_FILE") is not None
        return path, TRUST_VARIABLES[0 if in_file else 1]
    path = _core.system_trust()
    if path is not None:
        return path, "the system's"
    path = _ca_path_of_system()
    return path, "nobody names one" if path is None else "certifi's"


def _ca_path_from(environment: "Environment") -> str | None:
    """The first trust store that the environment names.

    SSL_CERT_DIR may be a list, as OpenSSL reads it: the first that is there
    counts, and the first at all where none is, so that the call can say so.
    """
    file = environment.get("SSL_CERT_FILE")
    if file is not None:
        return file
    directories = (environment.get("SSL_CERT_DIR") or "").split(os.pathsep)
    there = (name for name in directories if os.path.isdir(name))
    return next(there, directories[0]) or None


def _ca_path_of_system() -> str | None:
    """None where the core finds the system's own, else certifi's if it is
    installed; None again without: the call then says what was tried."""
    if _core.system_trust() is not None:
        return None
    try:
        import certifi
    except ImportError:
        return None
    return str(certifi.where())


# ---- What the environment wants to be told ---------------------------------

if any(map(os.environ.get, LOG_VARIABLES)):
    # It loads logging and sets it up. Whether logging is loaded is what the core goes
    # by, when it asks whether anybody listens.
    from . import _watch as _watch
