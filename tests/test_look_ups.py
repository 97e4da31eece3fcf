"""How often a client asks for the address of the exchange: seldom, and never too long.

The resolver is a preloaded one, which counts.
"""

import pytest

from tests.children import PRELUDE, Ended, run
from tests.names import QUESTIONS, KnownNames
from tests.rawserver import DONE, KEY, RawServer, Wire, answering, http

HOST = "trader.invalid"
ANY_SYMBOL = b'{"order_ids":["a-1"]}'
TEN = (
    PRELUDE
    + """
client = connect()
began = time.monotonic()
assert len(client.cancel_all([f"S{number}USDM" for number in range(10)])) == 10
say(time.monotonic() - began)
"""
)
TEN_ASYNC = (
    PRELUDE
    + """
import asyncio
async def main():
    async with connect_async() as client:
        await client.cancel_all([f"S{number}USDM" for number in range(10)])
asyncio.run(main())
"""
)
TWICE = (
    PRELUDE
    + """
client = connect()
for _ in range(2):
    client.cancel_all("ADAUSDM")
"""
)
TWICE_ASTRAY = (
    PRELUDE
    + """
client = connect(max_retries=0)
for _ in range(2):
    try:
        client.cancel_all("ADAUSDM")
    except espresso.ConnectError:
        say("astray")
"""
)
RETRIED = (
    PRELUDE
    + """
try:
    connect(max_retries=2).cancel_all("ADAUSDM")
except espresso.ConnectError as error:
    say(error.attempts)
"""
)
FORKED = (
    PRELUDE
    + """
client = connect()
client.cancel_all("ADAUSDM")
child = os.fork()
client.cancel_all("ADAUSDM")
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
)


class Client:
    """Programs in a process of their own, to whom the server has a name."""

    def __init__(self, names: KnownNames, env: dict[str, str]) -> None:
        self._names = names
        self._env = {n: v for n, v in env.items() if n != "ESPRESSO_LOOPBACK_ONLY"}

    def run(
        self, program: str, server: RawServer, *addresses: str, delay: float = 0.0
    ) -> tuple[int, Ended]:
        """How many questions it asked, and how it ended: well."""
        env = {
            **self._env,
            **self._names.env({HOST: addresses or ("127.0.0.1",)}, delay),
            "TEST_KEY": KEY,
            "TEST_URL": f"https://{HOST}:{server.port}",
            "TEST_CA": server.ca_file,
        }
        before = self._names.count
        ended = run(program, env).check()
        looked_up, rest = divmod(self._names.count - before, QUESTIONS)
        assert rest == 0
        return looked_up, ended


@pytest.fixture
def client(known: KnownNames, clean_env: dict[str, str]) -> Client:
    return Client(known, clean_env)


@pytest.mark.parametrize("program", [TEN, TEN_ASYNC], ids=["sync", "async"])
def test_a_list_asks_once(client: Client, program: str) -> None:
    with RawServer(answering(http(ANY_SYMBOL)), hosts=(HOST,)) as server:
        asked, _ = client.run(program, server)
        assert server.connections == 10
    assert asked == 1


def test_a_slow_answer_is_not_waited_for(client: Client) -> None:
    """It may be lost: the others ask for themselves soon, and all at once."""
    with RawServer(answering(http(ANY_SYMBOL)), hosts=(HOST,)) as server:
        asked, ended = client.run(TEN, server, delay=0.5)
    assert asked == 10
    assert float(ended.out) < 5 * 0.5


def one_answer(wire: Wire) -> None:
    wire.answer(http(DONE, 200, "Connection: close"))


def test_a_new_connection_asks_no_more(client: Client) -> None:
    with RawServer(one_answer, hosts=(HOST,)) as server:
        asked, _ = client.run(TWICE, server)
        assert server.connections == 2
    assert asked == 1


def test_an_address_that_led_astray_is_asked_for_anew(client: Client) -> None:
    """Its host may be gone, and the name have moved."""
    with RawServer(one_answer, hosts=(HOST,)) as server:
        asked, ended = client.run(TWICE_ASTRAY, server, "127.0.0.2")
        assert ended.out.split() == ["astray", "astray"]
        assert asked == 2
        asked, ended = client.run(RETRIED, server, "127.0.0.2")
        assert ended.out.split() == ["3"]
        assert asked == 3
        assert server.connections == 0


def test_a_child_asks_for_itself(client: Client) -> None:
    """It must not touch what the parent's connections hold."""
    with RawServer(answering(http(DONE)), hosts=(HOST,)) as server:
        asked, _ = client.run(FORKED, server)
        assert server.connections == 2
    assert asked == 2
