"""How the Python scripts beside this file speak with the tests: one JSON object a line."""

import importlib.metadata
import json
import os
import sys


def report(**line):
    """Prints one line."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def describe(package):
    """What an installed package says of itself."""
    return {"package": package, "version": importlib.metadata.version(package)}


def obey_lines(obey):
    """Reads commands from standard input until it ends, and answers each with one line.

    {"event":"done","answer":…} or {"event":"failed","message":"…"}.
    """
    for line in sys.stdin:
        try:
            report(event="done", answer=obey(json.loads(line)))
        except Exception as error:
            report(event="failed", message=f"{line.strip()}: {type(error).__name__}: {error}")
    # The end of the input is the end of the test, whatever a library's threads still do.
    os._exit(0)
