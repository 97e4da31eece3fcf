"""Self-contained wheels: their libraries, their build, their tests, their figures.

Run with ``python -m scripts.wheels.NAME`` from the root of the repository, in the
environment that ``make wheel-tools`` sets up (``requirements.txt`` in this folder).
"""
