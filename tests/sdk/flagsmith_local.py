"""Runs the published Flagsmith Python SDK, unmodified, and reports what it sees.

Local evaluation with real-time updates: the SDK holds the environment document and reads it again
when the stream announces a newer one.

Usage: python flagsmith_local.py BASE_URL SERVER_KEY
Prints one JSON line when the SDK is ready and for every change of a flag.
Reads commands from standard input: `refetch`, `exit`.
"""

import logging
import os
import sys
import threading
import time

from flagsmith import Flagsmith
from lines import describe, report

# The SDK has no listener for changes, and local evaluation costs nothing: it is asked often.
ASK_SECONDS = 0.02


def obey(client):
    for command in sys.stdin:
        if command.strip() == "exit":
            os._exit(0)
        if command.strip() == "refetch":
            # A failed read is only logged by the SDK.
            client.update_environment()
            report(event="refetched")
    # The end of the input is the end of the test.
    os._exit(0)


def report_changes(client, shown):
    for flag in client.get_environment_flags().all_flags():
        state = (flag.enabled, flag.value)
        if shown.get(flag.feature_name) != state:
            shown[flag.feature_name] = state
            report(event="flag", flag=flag.feature_name, enabled=flag.enabled, value=flag.value)


def main(base_url, server_key):
    logging.basicConfig(level=logging.INFO)
    try:
        client = Flagsmith(
            environment_key=server_key,
            api_url=f"{base_url}/api/v1/",
            realtime_api_url=f"{base_url}/",
            enable_local_evaluation=True,
            enable_realtime_updates=True,
        )
    except Exception as error:  # A wrong key: the test looks at what it cost the gateway.
        report(event="failed", message=str(error))
        return
    threading.Thread(target=obey, args=(client,), daemon=True).start()
    shown = {}
    report_changes(client, shown)
    report(event="ready", **describe("flagsmith"))
    while True:
        time.sleep(ASK_SECONDS)
        report_changes(client, shown)


main(*sys.argv[1:])
