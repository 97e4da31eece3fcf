"""The chaos judge: a hostile exchange, a client under test, and who is right.

Three processes, so that none can take another down::

    __main__ / test_chaos.py
      run.py        throw-away CA, starts both processes, waits, bounded
        server.py   TLS on loopback; draws a fault for each connection and request
          faults.py   the table of faults and what each answer is worth
        driver.py   workers, threads or tasks, that call; one claim a symbol
          clients.py  the faces: espresso, a naive client, a careful one
          async_clients.py  those for an event loop
      judge.py      pure: the server's log against the claims -> violations
        records.py    what both sides write down; what an answer means

The symbol of a call is its identity: ``C3-001234`` is call 1234 of seed 3. A list is
as many calls as it has symbols. Every symbol is cancelled by one call only, so each
POST in the server's log belongs to exactly one claim.
"""
