"""From SIGKILL of a bot to its watchdog's cancel at the server, on loopback.

python -m benchmarks.guard --runs 50
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from espresso.sandbox import Exchange

SYMBOL = "ADAUSDM"
BAR = 0.030
"""Seconds that the median may take."""
_PATIENCE = 30.0  # seconds
_BOT = f"""
import time
import espresso
with espresso.guard("{SYMBOL}"):
    print("armed", flush=True)
    time.sleep(60)
"""


def latency() -> float:
    """Seconds from one kill to the first request at the server."""
    with Exchange(rate=None, orders={SYMBOL: 1}) as exchange:
        env = os.environ | {
            "DELTADEFI_API_KEY": exchange.key,
            "DELTADEFI_BASE_URL": exchange.url,
            "SSL_CERT_FILE": exchange.ca_file,
            "ESPRESSO_LOOPBACK_ONLY": "1",
        }
        bot = subprocess.Popen(
            [sys.executable, "-c", _BOT],
            env=env,
            cwd=Path(__file__).resolve().parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            if bot.stdout is None or bot.stdout.readline() != b"armed\n":
                raise RuntimeError("the bot was not armed")
            began = time.time()
            bot.send_signal(signal.SIGKILL)
            (first, *_) = exchange.wait_for_calls(1, _PATIENCE)
            exchange.wait_for_calls(2, _PATIENCE)  # the proof: the watchdog ends
        finally:
            bot.kill()
            bot.communicate()
        return first.time - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    runs = sorted(latency() for _ in range(parser.parse_args().runs))
    median = statistics.median(runs)
    print(
        f"death to POST over {len(runs)} runs: median {median * 1e3:.1f} ms, "
        f"worst {runs[-1] * 1e3:.1f} ms (bar: median {BAR * 1e3:.0f} ms)"
    )
    return 0 if median <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
