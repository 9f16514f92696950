"""How long the background waits between its reads. All times are in seconds."""

from __future__ import annotations

import random

# After the first failures, while somebody waits for the answer to a delivery. Then it doubles.
FIRST = (0.1, 0.3, 1.0, 1.0, 2.0, 2.0)

# No read waits longer for its next try.
LONGEST = 60.0


class Pace:
    """The waits, with a jitter, so that many processes do not come at the same instant."""

    def __init__(self, poll_seconds: float) -> None:
        self._poll_seconds = poll_seconds

    @property
    def polls(self) -> bool:
        """Whether there is a poll at all."""
        return self._poll_seconds > 0

    def until_poll(self) -> float:
        """From a read that worked to the next poll."""
        return self._poll_seconds * random.uniform(0.8, 1.2)

    def until_retry(self, failures: int, asked: float) -> float:
        """After `failures` in a row; the last answer asked to wait for `asked`."""
        if failures <= len(FIRST):
            wait = FIRST[max(failures, 1) - 1]
        else:
            # The exponent is bounded, or it would become a number too large to multiply.
            wait = 2.0 * 2 ** min(failures - len(FIRST), 10)
        wait = min(wait, LONGEST) * random.uniform(0.8, 1.2)
        return min(max(wait, asked), LONGEST)
