"""One read of the flags, and everything that may come back, by HTTP and by TLS."""

import json
import ssl
import threading
import time
from pathlib import Path

from flagcast.copy import from_answer
from flagcast.read import Ask, Reader, ReadFailed

from .world import CLIENT_KEY, SOON, Gateway, WithWorld, eventually, reply, set_of


class Reads(WithWorld):
    """One read, and everything that may come back."""

    def read(self, ask=Ask(), timeout=SOON, url=None):
        reader = Reader(url or self.gateway.url, CLIENT_KEY, timeout)
        return reader.read(ask)

    def failure(self, *arguments, **options):
        with self.assertRaises(ReadFailed) as raised:
            self.read(*arguments, **options)
        return raised.exception

    def test_what_is_asked(self):
        self.read()
        self.read(Ask(revision=1))
        self.assertIsNone(self.read(Ask(etag='"1-1.0"')))
        path, headers = self.gateway.reads[0]
        self.assertEqual(path, f"/sdk/v1/environments/{CLIENT_KEY}/flags")
        self.assertEqual(headers["User-Agent"], "Flagcast-Python/0.1.0")
        self.assertEqual(self.gateway.paths(), ["", "?rev=1", ""])

    def test_a_base_with_a_path_and_a_key_with_odd_letters(self):
        reader = Reader(f"{self.gateway.url}/base", "a/b?c", SOON)
        reader.read(Ask())
        self.assertEqual(self.gateway.reads[0][0], "/base/sdk/v1/environments/a%2Fb%3Fc/flags")

    def test_statuses(self):
        for status in (204, 301, 302, 307, 304, 400, 401, 404, 410, 429, 500, 502, 503):
            self.gateway.script.append(
                lambda handler, status=status: reply(
                    handler, status, b"", {"Location": "/elsewhere"}
                )
            )
            self.failure()
        # No redirect was followed.
        self.assertEqual(len(self.gateway.reads), 13)

    def test_how_long_to_wait(self):
        for headers, wait in (
            ({"Retry-After": "7"}, 7),
            ({"Cache-Control": "public, max-age=1"}, 1),
            ({"Retry-After": "Sat, 28 Nov 2026 08:00:00 GMT"}, 0),
            ({"Retry-After": "-1"}, 0),
            ({"Cache-Control": "no-store"}, 0),
            ({}, 0),
        ):
            self.gateway.script.append(
                lambda handler, headers=headers: reply(handler, 404, b"", headers)
            )
            self.assertEqual(self.failure().wait, wait)

    def test_answers_that_are_no_flag_set(self):
        good = json.dumps(set_of(1, a=(True, 1)))
        for body in (
            "",
            "{",
            "[]",
            "null",
            good.replace("true", "1"),
            good.replace('"revision": 1', '"revision": "1"'),
            good.replace('"revision": 1', '"revision": true'),
            good.replace('"updated_at": 1.0', '"updated_at": null'),
            good.replace('"updated_at": 1.0', '"updated_at": NaN'),
            good.replace('"flags"', '"flag"'),
            '{"revision":1,"updated_at":1,"flags":[]}',
            '{"revision":1,"updated_at":1,"flags":{"a":null}}',
            "[" * 100_000,
        ):
            with self.subTest(body[:100]):
                self.gateway.script.append(
                    lambda handler, body=body: reply(handler, 200, body.encode())
                )
                self.assertIn("something else", str(self.failure()))
        self.assertEqual(from_answer(good.encode()).flags["a"], (True, 1))

    def test_an_answer_that_drips_is_given_up(self):
        """Each byte comes well within the time that a socket may be silent."""
        for part in (b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"):
            gone = threading.Event()

            def drip(handler, part=part, gone=gone):
                try:
                    handler.wfile.write(part)
                    while True:
                        handler.wfile.write(b" ")
                        time.sleep(0.02)
                except OSError:
                    gone.set()

            self.gateway.script.append(drip)
            self.assertIn("took longer than 1 s", str(self.failure(timeout=1)))
            self.assertTrue(gone.wait(SOON))

    def test_an_answer_that_does_not_come_is_given_up(self):
        self.gateway.gate.clear()
        self.assertIn("0.2 s", str(self.failure(timeout=0.2)))

    def test_an_answer_that_ends_early(self):
        self.gateway.script.append(
            lambda handler: reply(handler, 200, b"{", {"Content-Length": 100})
        )
        self.failure()

    def test_an_answer_that_is_too_large(self):
        def flood(handler):
            try:
                reply(handler, 200, b"", {"Content-Length": 10**12})
                while True:
                    handler.wfile.write(b" " * 65536)
            except OSError:
                pass

        self.gateway.script.append(flood)
        self.assertIn("larger than", str(self.failure()))

    def test_nobody_listens(self):
        self.gateway.stop()
        self.assertIn("cannot be read", str(self.failure()))
        self.gateway.restart()

    def test_close_ends_a_read(self):
        self.gateway.gate.clear()
        reader = Reader(self.gateway.url, CLIENT_KEY, SOON)
        failed = []

        def read():
            try:
                reader.read(Ask())
            except ReadFailed as error:
                failed.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        eventually("it reads", lambda: self.gateway.reads)
        reader.close()
        thread.join(SOON)
        self.assertTrue(failed)
        with self.assertRaises(ReadFailed):
            reader.read(Ask())
        self.assertEqual(len(self.gateway.reads), 1)


class Secure(WithWorld):
    """The same by TLS, with an authority that only the app knows."""

    def setUp(self):
        super().setUp()
        # Good for a hundred years, and for 127.0.0.1 alone.
        folder = Path(__file__).parent / "tls"
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
        self.secure = Gateway(tls=server)
        self.addCleanup(self.secure.stop)
        self.addCleanup(self.secure.gate.set)
        self.tls = ssl.create_default_context(cafile=str(folder / "certificate.pem"))

    def test_an_authority_of_the_app(self):
        receiver = self.ready(url=self.secure.url, tls=self.tls)
        self.secure.state = set_of(2)
        self.assertEqual(self.deliver(receiver, 2).status, 200)

    def test_a_stranger_is_not_believed(self):
        with self.assertRaisesRegex(ReadFailed, "CERTIFICATE_VERIFY_FAILED"):
            Reader(self.secure.url, CLIENT_KEY, SOON).read(Ask())
        self.assertEqual(self.secure.reads, [])

    def test_an_answer_that_drips_is_given_up(self):
        def drip(handler):
            try:
                handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
                while True:
                    handler.wfile.write(b" ")
                    time.sleep(0.02)
            except OSError:
                pass

        self.secure.script.append(drip)
        with self.assertRaisesRegex(ReadFailed, "took longer than 0.5 s"):
            Reader(self.secure.url, CLIENT_KEY, 0.5, self.tls).read(Ask())

    def test_close_ends_a_read(self):
        receiver = self.ready(url=self.secure.url, tls=self.tls)
        self.secure.gate.clear()
        thread = threading.Thread(target=lambda: self.deliver(receiver, 2))
        thread.start()
        eventually("it reads", lambda: len(self.secure.reads) == 2)
        receiver.close()
        thread.join(SOON)
        self.assertFalse(thread.is_alive())
