"""Whether a delivery comes from the gateway, and is of now: Standard Webhooks, symmetric `v1`.

The signature is over the bytes that came, `{id}.{timestamp}.{body}`; JSON that was read and written
again would be other bytes. Any secret may match any signature of the list, so that a secret can be
rotated without losing a delivery.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

from .answer import Refused

# How far the clocks may be apart, in seconds; all libraries of Standard Webhooks have this.
TOLERANCE = 300

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64

# Longer ones do not come from a gateway. They would be kept to recognise replays.
LONGEST_ID = 256

# A header's value by its name in small letters; `None` when there is none.
Header = Callable[[str], Optional[str]]


class Secrets:
    """The keys that may have signed. It never shows them."""

    def __init__(self, secrets: str | Sequence[str]) -> None:
        given: list[str] = list(secrets) if isinstance(secrets, (list, tuple)) else [str(secrets)]
        if not given:
            raise ValueError(
                "secret: an empty list; give the secret that was shown when the webhook was created"
            )
        self._keys: tuple[bytes, ...] = tuple(map(_key, given))

    def __repr__(self) -> str:
        return f"<{len(self._keys)} secrets>"

    def signed_any_of(self, content: bytes, signatures: Sequence[bytes]) -> bool:
        """Whether one of `signatures` is that of `content` with one of the keys."""
        matches = False
        for key in self._keys:
            digest = hmac.new(key, content, hashlib.sha256).digest()
            expected = base64.b64encode(digest)
            for signature in signatures:
                # All are compared, each in constant time: how long it takes says nothing.
                matches |= hmac.compare_digest(expected, signature)
        return matches


class Attempt(NamedTuple):
    """What identifies one attempt at one delivery."""

    # Stable across attempts.
    id: str
    # Unix seconds, of this attempt.
    timestamp: int


def verify(secrets: Secrets, header: Header, body: bytes, now: float) -> Attempt:
    """Returns which attempt this is; raises `Refused` with 400 or 401 when it is not genuine.

    The signature is looked at before the time, so that strangers learn nothing of our clock.
    """
    name, stamp, signatures = _headers(header)
    content = b".".join((name.encode("latin-1", "replace"), stamp.encode(), body))
    if not secrets.signed_any_of(content, signatures):
        raise Refused(401, "the signature does not match: check the webhook's secret")
    attempt = Attempt(name, int(stamp))
    if attempt.timestamp < now - TOLERANCE:
        raise Refused(400, "webhook-timestamp is too old: check the clocks")
    if attempt.timestamp > now + TOLERANCE:
        raise Refused(400, "webhook-timestamp is too new: check the clocks")
    return attempt


def _headers(header: Header) -> tuple[str, str, Sequence[bytes]]:
    """The id, the timestamp as it was signed, and the signatures of the version that we know."""
    values = []
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        value = header(name)
        if not value:
            raise Refused(400, f"{name} is missing")
        values.append(value)
    name, stamp, listed = values
    if len(name) > LONGEST_ID or not name.isascii() or not name.isprintable():
        raise Refused(400, "webhook-id is not an id")
    # No sign, no fraction, no digits of other scripts, nothing that takes long to read.
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 15):
        raise Refused(400, "webhook-timestamp is not in Unix seconds")
    entries = [entry.partition(",") for entry in listed.split()]
    if not entries or not all(version and signature for version, _, signature in entries):
        raise Refused(400, "webhook-signature is not a list of `version,signature`")
    known = [sign.encode("latin-1", "replace") for version, _, sign in entries if version == "v1"]
    return name, stamp, known


def _key(secret: str) -> bytes:
    """The bytes behind `whsec_`. Messages never quote what was given: it may be a real secret."""
    if not isinstance(secret, str) or not secret.startswith(PREFIX):
        raise ValueError(
            f"secret: it does not begin with {PREFIX!r}; "
            "give the secret that was shown when the webhook was created"
        )
    try:
        key = base64.b64decode(secret[len(PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            f"secret: what follows {PREFIX!r} is not base64; copy it whole, with its `=`"
        ) from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise ValueError(
            f"secret: it has {len(key)} bytes behind {PREFIX!r}, and {SHORTEST} to {LONGEST} are "
            "allowed; copy it whole"
        )
    return key
