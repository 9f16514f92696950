"""Runs the published Flagsmith SDK for Python, unmodified.

Usage: python flagsmith_python.py remote|local BASE_URL SERVER_KEY
Local evaluation follows changes by the stream of real-time updates.
Commands (`lines.py` says how they are given and answered):
  {"do":"evaluate","users":[{"identifier":"ann","traits":{"plan":"pro"}}]}
      for each user, and for a user without an identifier the environment's own:
      {"banner":{"enabled":true,"value":"hello"},…}
"""

import sys

from flagsmith import Flagsmith
from lines import describe, obey_lines, report


def evaluate(client, user):
    if "identifier" in user:
        flags = client.get_identity_flags(user["identifier"], user["traits"])
    else:
        flags = client.get_environment_flags()
    return {
        flag.feature_name: {"enabled": flag.enabled, "value": flag.value}
        for flag in flags.all_flags()
    }


def obey(client, command):
    if command["do"] == "evaluate":
        return [evaluate(client, user) for user in command["users"]]
    raise ValueError(f"unknown command {command['do']}")


def main(mode, base_url, server_key):
    is_local = mode == "local"
    client = Flagsmith(
        environment_key=server_key,
        api_url=f"{base_url}/api/v1/",
        realtime_api_url=f"{base_url}/",
        enable_local_evaluation=is_local,
        enable_realtime_updates=is_local,
    )
    report(event="ready", **describe("flagsmith"))
    obey_lines(lambda command: obey(client, command))


main(*sys.argv[1:])
