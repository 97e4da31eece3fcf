"""In the SDK's environment: cancel, cancel again, and with a key that is none.

    python child.py URL        the key stands in DELTADEFI_API_KEY

Prints one JSON object a call: the result, or the error's class and text.
"""

import json
import os
import sys

from deltadefi import ApiClient


def press(key: str, url: str) -> dict[str, object]:
    client = ApiClient(network="mainnet", api_key=key, base_url=url)
    try:
        return {"result": client.cancel_all_orders("ADAUSDM")}
    except Exception as error:  # whatever it makes of an answer is to be seen
        return {"error": type(error).__name__, "text": str(error)}


def main() -> None:
    key = os.environ["DELTADEFI_API_KEY"]
    for it in (key, key, "sandbox-of-nobody"):
        sys.stdout.flush()
        print(json.dumps(press(it, sys.argv[1])))


main()
