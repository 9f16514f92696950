"""Runs OpenFeature's SDK for Python with its OFREP provider, unmodified.

Usage: python openfeature_python.py BASE_URL KEY
Commands (`lines.py` says how they are given and answered):
  {"do":"resolve","flag":"banner","type":"string","default":"x","context":{"targetingKey":"ann"}}
      {"value","variant","reason","error","metadata"}; `type` is boolean, string, integer, float
      or object; without a context none is sent
"""

import sys

from lines import describe, obey_lines, report
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext


def context_of(command):
    if "context" not in command:
        return None
    attributes = dict(command["context"])
    return EvaluationContext(attributes.pop("targetingKey", None), attributes)


def obey(client, command):
    if command["do"] != "resolve":
        raise ValueError(f"unknown command {command['do']}")
    resolve = getattr(client, f"get_{command['type']}_details")
    details = resolve(command["flag"], command["default"], context_of(command))
    return {
        "value": details.value,
        "variant": details.variant,
        "reason": details.reason and str(details.reason),
        "error": details.error_code and details.error_code.value,
        "metadata": dict(details.flag_metadata),
    }


def main(base_url, key):
    headers = {"Authorization": f"Bearer {key}"}
    api.set_provider(OFREPProvider(base_url, headers_factory=lambda: headers))
    client = api.get_client()
    report(event="ready", **describe("openfeature-provider-ofrep"))
    obey_lines(lambda command: obey(client, command))


main(*sys.argv[1:])
