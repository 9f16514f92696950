"""Who is believed: the table of forgeries, beside the published verifier as an oracle."""

import base64
import time
import unittest

from standardwebhooks import Webhook, WebhookVerificationError

from flagcast.answer import Refused
from flagcast.signature import Secrets, verify

from .world import OLD_SECRET, SECRET, sign

VECTOR = {
    "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
    "id": "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
    "timestamp": 1649367553,
    "body": b'{"email":"test@example.com","username":"test_user"}',
    "signature": "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
}
BODY = '{"type":"environment.updated","data":{"päge":1}}'.encode()
ID = "msg_1"


def headers(name=ID, timestamp=None, signature=None, secret=SECRET, body=BODY):
    timestamp = str(int(time.time())) if timestamp is None else str(timestamp)
    return {
        "webhook-id": name,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature or sign(secret, name, timestamp, body),
    }


def without(name):
    made = headers()
    del made[name]
    return made


def status(secrets, made, body=BODY, now=None):
    try:
        verify(Secrets(secrets), made.get, body, time.time() if now is None else now)
    except Refused as refused:
        return refused.status
    return 200


def listed(*entries):
    return headers(signature=" ".join(entries))


def now(offset=0):
    return int(time.time()) + offset


GOOD = sign(SECRET, ID, now(), BODY)
BAD = sign(OLD_SECRET, ID, now(), BODY)

# What comes, whether it is taken, and with which status.
TABLE = {
    "genuine": (lambda: headers(), 200),
    "another secret": (lambda: headers(secret=OLD_SECRET), 401),
    "a signature of another body": (lambda: headers(body=BODY[:-1]), 401),
    "a signature of another id": (lambda: {**headers(), "webhook-id": "msg_2"}, 401),
    "a signature of another time": (lambda: {**headers(), "webhook-timestamp": str(now(-9))}, 401),
    "an empty signature": (lambda: listed("v1,"), 400),
    "half a signature": (lambda: listed(sign(SECRET, ID, now(), BODY)[:24]), 401),
    "a truncated list": (lambda: listed(BAD, sign(SECRET, ID, now(), BODY)[:20]), 401),
    "the right one last": (lambda: listed(BAD, sign(SECRET, ID, now(), BODY)), 200),
    "the right one first": (lambda: listed(sign(SECRET, ID, now(), BODY), BAD), 200),
    "an unknown version before": (lambda: listed("v1a,abcd", sign(SECRET, ID, now(), BODY)), 200),
    "only an unknown version": (lambda: listed(GOOD.replace("v1,", "v1a,")), 401),
    "the right one as another version": (lambda: listed(GOOD.replace("v1,", "v2,")), 401),
    "no version": (lambda: listed(GOOD[3:]), 400),
    "no id": (lambda: without("webhook-id"), 400),
    "no time": (lambda: without("webhook-timestamp"), 400),
    "no signature": (lambda: without("webhook-signature"), 400),
    "an empty id": (lambda: headers(name=""), 400),
    "a time that is none": (lambda: headers(timestamp="yesterday"), 400),
    "too old": (lambda: headers(timestamp=now(-302)), 400),
    "almost too old": (lambda: headers(timestamp=now(-295)), 200),
    "too new": (lambda: headers(timestamp=now(302)), 400),
    "almost too new": (lambda: headers(timestamp=now(295)), 200),
    "too old and forged": (lambda: headers(timestamp=now(-302), secret=OLD_SECRET), 401),
}


class Signatures(unittest.TestCase):
    def test_the_official_vector(self):
        made = headers(VECTOR["id"], VECTOR["timestamp"], VECTOR["signature"])
        for offset, wanted in ((0, 200), (300, 200), (-300, 200), (301, 400), (-301, 400)):
            with self.subTest(offset):
                at = VECTOR["timestamp"] + offset
                self.assertEqual(status(VECTOR["secret"], made, VECTOR["body"], at), wanted)

    def test_the_table_and_the_published_verifier(self):
        for what, (make, wanted) in TABLE.items():
            with self.subTest(what):
                made = make()
                self.assertEqual(status(SECRET, made), wanted)
                try:
                    Webhook(SECRET).verify(BODY, made)
                    accepted = True
                # It raises `ValueError` for some garbled lists.
                except (WebhookVerificationError, ValueError):
                    accepted = False
                self.assertEqual(accepted, wanted == 200)

    def test_every_changed_bit_of_the_body_and_the_signature(self):
        made = headers()
        for at in range(len(BODY)):
            changed = bytearray(BODY)
            changed[at] ^= 1
            self.assertEqual(status(SECRET, made, bytes(changed)), 401)
        signature = made["webhook-signature"]
        for at in range(3, len(signature)):
            changed = signature[:at] + chr(ord(signature[at]) ^ 1) + signature[at + 1 :]
            self.assertIn(status(SECRET, {**made, "webhook-signature": changed}), (400, 401))

    def test_stricter_than_the_published_verifier(self):
        for stamp in ("1e9", "+5", " 5", "5.0", "٣", "9" * 16, "-5", "1_0"):
            with self.subTest(stamp):
                with self.assertRaisesRegex(Refused, "Unix seconds"):
                    verify(Secrets(SECRET), headers(timestamp=stamp).get, BODY, 1e9)
        self.assertEqual(status(SECRET, headers(name="x" * 257)), 400)
        self.assertEqual(status(SECRET, headers(name="x" * 256)), 200)
        self.assertEqual(status(SECRET, {**headers(), "webhook-id": "msg_ä"}), 400)

    def test_rotation_of_secrets(self):
        both = [OLD_SECRET, SECRET]
        new, old = headers(), headers(secret=OLD_SECRET)
        self.assertEqual([status(both, new), status(both, old)], [200, 200])
        self.assertEqual([status(SECRET, new), status(SECRET, old)], [200, 401])
        # During an overlap the gateway signs with both.
        stamp = new["webhook-timestamp"]
        signatures = " ".join(sign(secret, ID, stamp, BODY) for secret in both)
        self.assertEqual(status(OLD_SECRET, headers(timestamp=stamp, signature=signatures)), 200)

    def test_secrets_that_cannot_be(self):
        def encoded(length):
            return "whsec_" + base64.b64encode(b"x" * length).decode()

        for secret in (
            "",
            "whsec_",
            "abc",
            "whsec_!" + SECRET[6:],
            encoded(23),
            encoded(65),
            [],
            None,
            [None],
        ):
            with self.subTest(secret), self.assertRaises((ValueError, TypeError)) as raised:
                Secrets(secret)
            if secret and isinstance(secret, str):
                self.assertNotIn(secret[6:] or "nothing", str(raised.exception))
        for length in (24, 64):
            Secrets(encoded(length))

    def test_secrets_do_not_show(self):
        self.assertEqual(repr(Secrets([SECRET, OLD_SECRET])), "<2 secrets>")


if __name__ == "__main__":
    unittest.main()
