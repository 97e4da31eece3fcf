"""Very many calls through one client, with faults: nothing grows, nothing gets slow.

``python -m tests.soak --calls N`` runs it and exits 1 if a bound is not held:

- ``server.py``: TLS on loopback, in a process of its own; one request in a hundred
  meets a fault
- ``client.py``: the calls, in a process of their own, and what they cost
- ``run.py``: one run of both, and its table
"""
