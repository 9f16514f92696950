"""Verifies deliveries by PyPI's `standardwebhooks`, as a receiver does.

Reads from standard input, a line each: {"secret": "whsec_…", "headers": {…}, "body": "…"}.
Prints for each line: {"accepted": true} or {"accepted": false}.
"""

import json
import sys

from lines import report
from standardwebhooks import Webhook

for line in sys.stdin:
    asked = json.loads(line)
    try:
        Webhook(asked["secret"]).verify(asked["body"], asked["headers"])
        report(accepted=True)
    except Exception:  # whatever a receiver would answer an error for
        report(accepted=False)
