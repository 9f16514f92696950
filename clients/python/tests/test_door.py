"""What is taken at the door and what is answered, the same in WSGI and in ASGI."""

import asyncio
import io
import json
import threading
import time

from .world import (
    CLIENT_KEY,
    OLD_SECRET,
    SECRET,
    SOON,
    WithWorld,
    message,
    post_asgi,
    post_wsgi,
    set_of,
    signed,
)

LIMIT = 256 * 1024


class Rules:
    """Every rule, asked through one of the doors: `post(receiver, body, headers, **how)`."""

    def test_a_delivery_is_applied_and_confirmed(self):
        receiver = self.ready()
        self.assertFalse(receiver.enabled("dark-mode", True))
        self.gateway.state = set_of(2, dark_mode=(True, "night"))
        reply = self.send(receiver, message(2))
        self.assertEqual((reply.status, reply.applied), (200, "2"))
        self.assertEqual(reply.json, {"applied_revision": 2})
        self.assertEqual(reply.headers["content-type"], "application/json")
        self.assertTrue(receiver.enabled("dark-mode"))
        self.assertEqual(receiver.value("dark-mode"), "night")
        # From the gateway that was configured, with the revision.
        self.assertEqual(self.gateway.paths(), ["", "?rev=2"])

    def test_every_type_is_alike(self):
        receiver = self.ready()
        types = (
            "environment.updated",
            "flag.updated",
            "segment.deleted",
            "webhook.test",
            "new.one",
        )
        for revision, type in enumerate(types, start=2):
            self.gateway.state = set_of(revision)
            reply = self.send(receiver, message(revision, type=type, event={"id": 17}))
            self.assertEqual((reply.status, reply.applied), (200, str(revision)))

    def test_what_is_held_is_not_fetched(self):
        receiver = self.ready()
        for revision in (0, 1):
            self.assertEqual(self.send(receiver, message(revision)).status, 200)
        self.assertEqual(len(self.gateway.reads), 1)

    def test_only_posts(self):
        receiver = self.ready()
        for method in ("GET", "PUT", "OPTIONS", "DELETE", "HEAD"):
            reply = self.send(receiver, b"", method=method)
            self.assertEqual((reply.status, reply.headers["allow"]), (405, "POST"))
            self.assertEqual(reply.json is None, method == "HEAD")

    def test_bodies_have_a_limit(self):
        receiver = self.ready()
        fits = message(1, padding="x")
        fits = message(1, padding="x" * (LIMIT + 1 - len(fits)))
        self.assertEqual(len(fits), LIMIT)
        self.assertEqual(self.send(receiver, fits).status, 200)
        reply = self.send(receiver, fits + b" ")
        self.assertEqual((reply.status, reply.applied), (413, "1"))

    def test_headers_that_are_missing_or_garbled(self):
        receiver = self.ready()
        body = message(1)
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
            for value in (None, "", "a b"):
                headers = signed(body)
                headers[name] = value
                if value is None:
                    del headers[name]
                reply = self.send(receiver, body, headers)
                # An id may be any text; then the signature is another's.
                wanted = 401 if (name, value) == ("webhook-id", "a b") else 400
                self.assertEqual(reply.status, wanted, (name, value))
                self.assertEqual(reply.applied, "1")
                self.assertEqual(list(reply.json), ["error"])

    def test_forgeries(self):
        receiver = self.ready()
        body = message(2)
        for headers, sent in (
            (signed(body, secrets=[OLD_SECRET]), body),
            (signed(body), message(3)),
            (signed(body), body + b" "),
            (signed(body), b""),
        ):
            reply = self.send(receiver, sent, headers)
            self.assertEqual((reply.status, reply.applied), (401, "1"))
            self.assertNotIn("whsec_", reply.error)
        self.assertEqual(len(self.gateway.reads), 1)

    def test_clocks_that_are_apart(self):
        receiver = self.ready(clock=lambda: 1_000_000.5)
        body = message(1)
        for timestamp, wanted in (
            (999_701, 200),
            (999_700, 400),
            (1_000_300, 200),
            (1_000_301, 400),
        ):
            reply = self.send(receiver, body, signed(body, timestamp=timestamp))
            self.assertEqual(reply.status, wanted, timestamp)
            if wanted == 400:
                self.assertIn("too old" if timestamp < 1_000_000 else "too new", reply.error)
                self.assertIn("check the clocks", reply.error)

    def test_another_environment(self):
        receiver = self.ready()
        reply = self.send(receiver, message(2, client_key="other"))
        self.assertEqual(reply.status, 400)
        self.assertIn("'other'", reply.error)
        self.assertIn(CLIENT_KEY, reply.error)
        self.assertEqual(len(self.gateway.reads), 1)

    def test_bodies_that_are_no_delivery(self):
        receiver = self.ready()
        bodies = [b"{", b"[]", b"7", b"{}", b'{"data":7}', b"\xff", b"", b"[" * 100_000]
        for revision in (None, "2", 2.5, True, -1):
            bodies.append(
                message(2).replace(
                    b'"revision": 2', b'"revision": %s' % json.dumps(revision).encode()
                )
            )
        for updated_at in (b"null", b'"2"', b"true", b"NaN", b"1e999", b"Infinity"):
            bodies.append(message(2).replace(b'"updated_at": 2.0', b'"updated_at": ' + updated_at))
        bodies.append(message(2).replace(b'"revision": 2', b'"revision": ' + b"9" * 10_000))
        for body in bodies:
            reply = self.send(receiver, body)
            self.assertEqual(reply.status, 400, body[:200])
        self.assertEqual(len(self.gateway.reads), 1)

    def test_a_replay_is_refused(self):
        receiver = self.ready()
        self.gateway.state = set_of(2)
        body = message(2)
        headers = signed(body)
        replies = [self.send(receiver, body, headers) for _ in range(3)]
        self.assertEqual([reply.status for reply in replies], [200, 409, 409])
        self.assertEqual(replies[1].applied, "2")

    def test_another_try_of_the_gateway_is_no_replay(self):
        receiver = self.ready()
        self.gateway.state = set_of(2)
        body, now = message(2), int(time.time())
        for timestamp in (now - 5, now):
            headers = signed(body, "msg_again", timestamp)
            self.assertEqual(self.send(receiver, body, headers).status, 200)
        # The first was applied; nothing is fetched for the second.
        self.assertEqual(self.gateway.paths(), ["", "?rev=2"])

    def test_a_forgery_does_not_spend_an_id(self):
        receiver = self.ready()
        body = message(1)
        headers = signed(body, "msg_spent")
        forged = {**headers, "webhook-signature": "v1,AAAA"}
        self.assertEqual(self.send(receiver, body, forged).status, 401)
        self.assertEqual(self.send(receiver, body, headers).status, 200)

    def test_both_secrets_of_a_rotation(self):
        receiver = self.ready(secret=[SECRET, OLD_SECRET])
        for secrets in ([SECRET], [OLD_SECRET], [OLD_SECRET, SECRET]):
            body = message(1)
            self.assertEqual(self.send(receiver, body, signed(body, secrets=secrets)).status, 200)

    def test_what_cannot_be_fetched_is_told_and_fetched_later(self):
        receiver = self.ready(answer_timeout=0.1)
        self.gateway.gate.clear()
        self.gateway.state = set_of(2)
        reply = self.send(receiver, message(2))
        self.assertEqual((reply.status, reply.applied), (503, "1"))
        self.assertEqual(reply.headers["retry-after"], "5")
        self.gateway.gate.set()
        self.eventually(lambda: receiver.revision == 2)
        self.assertEqual(self.send(receiver, message(2)).status, 200)
        self.assertEqual(self.gateway.paths(), ["", "?rev=2"])

    def test_nothing_is_held_yet(self):
        self.gateway.stop()
        receiver = self.receiver(answer_timeout=0.1)
        reply = self.send(receiver, message(2))
        self.assertEqual((reply.status, reply.applied), (503, None))
        self.assertIsNone(self.send(receiver, b"").applied)
        self.gateway.restart()

    def eventually(self, check):
        from .world import eventually

        eventually("the receiver is up to date", check)

    def send(self, receiver, body, headers=None, **how):
        return self.post(receiver, body, signed(body) if headers is None else headers, **how)


class Wsgi(Rules, WithWorld):
    def post(self, receiver, body, headers, **how):
        return post_wsgi(receiver.wsgi, body, headers, **how)

    def test_lengths_that_are_declared(self):
        receiver = self.ready()
        body = message(1)
        for length, wanted in (
            (str(LIMIT + 1), 413),
            ("9" * 5000, 413),
            ("x", 400),
            ("-1", 400),
            ("0" * 5000, 413),
            ("٣", 400),
            (str(len(body) + 1), 400),
            (str(len(body) - 1), 401),
            ("", 401),
        ):
            environ = {
                "REQUEST_METHOD": "POST",
                "wsgi.input": io.BytesIO(body),
                "CONTENT_LENGTH": length,
            }
            for name, value in signed(body).items():
                environ["HTTP_" + name.upper().replace("-", "_")] = value
            said = []
            receiver.wsgi(environ, lambda status, headers: said.append(status))
            self.assertEqual(int(said[0][:3]), wanted, length)

    def test_bodies_in_chunks(self):
        receiver = self.ready()
        for body, wanted in ((message(1), 200), (message(1, padding="x" * LIMIT), 413)):
            reply = post_wsgi(
                receiver.wsgi,
                body,
                signed(body),
                CONTENT_LENGTH="",
                **{"wsgi.input_terminated": True},
            )
            self.assertEqual(reply.status, wanted)

    def test_a_large_body_is_not_read(self):
        receiver = self.ready()

        class Input:
            def read(self, _):
                raise AssertionError("it is read")

        said = []
        environ = {
            "REQUEST_METHOD": "POST",
            "wsgi.input": Input(),
            "CONTENT_LENGTH": str(LIMIT + 1),
        }
        receiver.wsgi(environ, lambda status, headers: said.append(status))
        self.assertEqual(said, ["413 Content Too Large"])

    def test_a_middleware_passes_the_rest_on(self):
        receiver = self.ready()

        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [json.dumps(environ["PATH_INFO"]).encode()]

        body = message(1)
        wrapped = receiver.wsgi_middleware(app, path="/hooks/flags")
        for path in ("/", "/hooks", "/hooks/flags/", "/hooks/flags/x", "/HOOKS/FLAGS"):
            reply = post_wsgi(wrapped, body, signed(body), PATH_INFO=path)
            self.assertEqual(reply.json, path)
        reply = post_wsgi(wrapped, body, signed(body), PATH_INFO="/hooks/flags")
        self.assertEqual(reply.json, {"applied_revision": 1})
        with self.assertRaises(ValueError):
            receiver.wsgi_middleware(app, path="flags")


class Asgi(Rules, WithWorld):
    def post(self, receiver, body, headers, **how):
        return asyncio.run(post_asgi(receiver.asgi, body, headers, **how))

    def test_bodies_in_chunks(self):
        receiver = self.ready()
        for body, wanted in ((message(1), 200), (message(1, padding="x" * LIMIT), 413)):
            sent = asyncio.run(post_asgi(receiver.asgi, body, signed(body), chunk=100))
            self.assertEqual(sent.status, wanted)

    def test_a_declared_length_is_refused_before_the_body(self):
        receiver = self.ready()
        headers = {"content-length": str(LIMIT + 1)}
        self.assertEqual(self.send(receiver, b"{}", headers).status, 413)

    def test_a_header_that_comes_twice_is_garbled(self):
        receiver = self.ready()
        body = message(1)
        headers = signed(body)
        twice = [("webhook-signature", headers["webhook-signature"])]
        sent = asyncio.run(post_asgi(receiver.asgi, body, headers, more=twice))
        self.assertEqual(sent.status, 401)

    def test_a_sender_that_goes_gets_no_answer(self):
        receiver = self.ready()

        async def receive():
            return {"type": "http.disconnect"}

        async def send(event):
            raise AssertionError(event)

        scope = {"type": "http", "method": "POST", "headers": [], "path": "/"}
        asyncio.run(receiver.asgi(scope, receive, send))

    def test_the_loop_is_not_blocked_and_no_thread_is_held(self):
        # Nothing but the thread that reads can end the wait in time.
        receiver = self.ready(answer_timeout=600)
        self.gateway.state = set_of(2, dark_mode=(True, None))
        self.gateway.gate.clear()
        before = threading.active_count()

        async def story():
            bodies = [message(2) for _ in range(100)]
            posts = [
                asyncio.ensure_future(post_asgi(receiver.asgi, body, signed(body)))
                for body in bodies
            ]
            # The loop goes round while all of them wait for one read.
            while len(self.gateway.reads) < 2:
                await asyncio.sleep(0.001)
            for _ in range(100):
                await asyncio.sleep(0)
            self.assertFalse(any(post.done() for post in posts))
            # The reading thread, its deadline, and the gateway's two.
            self.assertLessEqual(threading.active_count(), before + 4)
            self.gateway.gate.set()
            return await asyncio.gather(*posts)

        replies = asyncio.run(asyncio.wait_for(story(), SOON))
        self.assertEqual({(reply.status, reply.applied) for reply in replies}, {(200, "2")})
        self.assertEqual(self.gateway.paths(), ["", "?rev=2"])

    def test_a_middleware_passes_the_rest_on(self):
        receiver = self.receiver()
        seen = []

        async def app(scope, receive, send):
            seen.append((scope["type"], scope.get("path")))
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"7"})

        wrapped = receiver.asgi_middleware(app, path="/flags")
        # A server that starts starts the receiver, too.
        asyncio.run(wrapped({"type": "lifespan"}, None, None))
        self.eventually(lambda: receiver.ready)
        body = message(1)
        for path, root, mine in (
            ("/flags", "", True),
            ("/flags/", "", False),
            ("/", "", False),
            ("/app/flags", "/app", True),
            ("/application/flags", "/app", False),
        ):
            sent = asyncio.run(post_asgi(wrapped, body, signed(body), path=path, root_path=root))
            self.assertEqual(sent.json, {"applied_revision": 1} if mine else 7, path)
        asyncio.run(wrapped({"type": "websocket", "path": "/flags"}, None, None))
        self.assertEqual(seen[0], ("lifespan", None))
        self.assertEqual(seen[-1], ("websocket", "/flags"))
        with self.assertRaises(ValueError):
            receiver.asgi_middleware(app, path="")

    def test_as_the_whole_app_of_a_server(self):
        receiver = self.receiver()
        events = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent = []

        async def receive():
            return events.pop(0)

        async def send(event):
            sent.append(event["type"])

        asyncio.run(receiver.asgi({"type": "lifespan"}, receive, send))
        self.assertEqual(sent, ["lifespan.startup.complete", "lifespan.shutdown.complete"])
        asyncio.run(receiver.asgi({"type": "websocket"}, receive, send))
        self.assertEqual(sent[-1], "websocket.close")
