"""The fault matrix: what can go wrong in which phase, and what a call then says.

    promises.py   the rows: exception, outcome, whether it is tried again
    faults.py     how each fault is made; a row without its fault is an error
    places.py     the servers, names, proxies and processes that make it
    wires.py      what a server does to a connection, byte by byte
    told.py       the call: sync, list, asyncio, asyncio list; what it tells
    press.py      the same through the command line, or in a child
    child.py      the call in a process of its own, where the fault needs one
    stubs.py      what stands in for functions of the C library there
    caller.py     faults that the caller makes itself: Ctrl-C, close, exit
    trial.py      one row through one face, and whether the promise is held
    network.py    faults inside the network stack, in namespaces of our own
    servers.py    nginx, HAProxy, and what stands for Envoy
    gateways.py   calls through them, with pauses about their idle time-outs
    runner.py     many of these side by side

Run by tests/test_matrix*.py; ``make matrix REPEATS=10`` prints it row by row.
"""
