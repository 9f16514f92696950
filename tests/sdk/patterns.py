"""Matches patterns by Python's `re`, as Flagsmith's engine for Python does.

Reads from standard input, a line each: {"pattern": "…", "subjects": ["…"]}.
Prints for each line: {"matches": [true], "slowest": milliseconds} or {"error": "…"}.
"""

import json
import re
import sys
import time

for line in sys.stdin:
    asked = json.loads(line)
    matches, slowest = [], 0.0
    try:
        pattern = re.compile(asked["pattern"])
        for subject in asked["subjects"]:
            begun = time.perf_counter()
            matches.append(pattern.match(subject) is not None)
            slowest = max(slowest, time.perf_counter() - begun)
        answer = {"matches": matches, "slowest": slowest * 1000}
    except (re.error, OverflowError) as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
