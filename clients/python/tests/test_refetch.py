"""How the copy follows the gateway: reads, their order, their failures, and the poll."""

import json
import threading
import time
import unittest
from unittest import mock

from flagcast.copy import NotACopy, from_answer, from_stored, to_stored
from flagcast.pace import FIRST, LONGEST, Pace

from .world import SOON, WithWorld, eventually, reply, set_of


class Refetches(WithWorld):
    def test_a_revision_that_is_not_there_yet(self):
        receiver = self.ready()
        states = [set_of(1), set_of(2, dark_mode=(True, None))]

        def not_yet(handler):
            self.gateway.answer(handler)
            self.gateway.state = states[1]

        self.gateway.script.append(not_yet)
        begun = time.monotonic()
        answer = self.deliver(receiver, 2)
        self.assertEqual((answer.status, answer.applied), (200, "2"))
        self.assertEqual(self.gateway.paths(), ["", "?rev=2", "?rev=2"])
        # The 404 may be kept for a second by a cache, so nothing is asked before that.
        self.assertGreaterEqual(time.monotonic() - begun, 1)

    def test_failures_are_tried_again_within_the_delivery(self):
        receiver = self.ready()
        self.gateway.state = set_of(2)
        self.gateway.script += [
            lambda handler: reply(handler, 500, b"oh"),
            lambda handler: reply(handler, 200, b"no flags"),
            lambda handler: handler.connection.close(),
        ]
        self.assertEqual(self.deliver(receiver, 2).status, 200)
        self.assertEqual(len(self.gateway.reads), 5)

    def test_newer_is_by_instant_not_by_revision(self):
        """After a restore from a backup revisions go back, and time goes on."""
        self.gateway.state = set_of(50, 1000.0, banner=(True, "before"))
        receiver = self.ready()
        self.gateway.state = set_of(43, 1000.015625, banner=(True, "restored"))
        answer = self.deliver(receiver, 43, 1000.015625)
        self.assertEqual((answer.status, answer.applied), (200, "43"))
        self.assertEqual(receiver.value("banner"), "restored")
        self.assertEqual(receiver.updated_at, 1000.015625)

    def test_a_higher_revision_of_an_earlier_instant_is_not_taken(self):
        self.gateway.state = set_of(5, 2000.0, banner=(True, "held"))
        receiver = self.ready(answer_timeout=0.1)
        self.gateway.state = set_of(60, 1000.0, banner=(True, "stale"))
        self.assertEqual(self.deliver(receiver, 60, 3000.0).status, 503)
        eventually("it is asked again", lambda: len(self.gateway.reads) >= 3)
        self.assertEqual((receiver.revision, receiver.value("banner")), (5, "held"))

    def test_the_same_instant_is_not_taken(self):
        self.gateway.state = set_of(5, 2000.0, banner=(True, "held"))
        receiver = self.ready(answer_timeout=0.1)
        self.gateway.state = set_of(7, 2000.0, banner=(True, "other"))
        self.assertEqual(self.deliver(receiver, 7, 2001.0).status, 503)
        self.assertGreater(len(self.gateway.reads), 1)
        self.assertEqual(receiver.value("banner"), "held")

    def test_a_cache_that_remembers_the_time_before_a_restore(self):
        """It has `?rev=43` for a year, with what revision 43 was; the next read goes past it."""
        self.gateway.state = set_of(50, 1000.0)
        receiver = self.ready()
        old, new = set_of(43, 900.0), set_of(43, 2000.0, banner=(True, "restored"))

        def cached(handler):
            self.gateway.state = old
            self.gateway.answer(handler)
            self.gateway.state = new

        self.gateway.script.append(cached)
        self.assertEqual(self.deliver(receiver, 43, 2000.0).status, 200)
        self.assertEqual(receiver.value("banner"), "restored")
        self.assertEqual(self.gateway.paths(), ["", "?rev=43", ""])
        self.assertEqual(self.gateway.reads[-1][1]["Cache-Control"], "no-cache")
        self.assertNotIn("If-None-Match", self.gateway.reads[-1][1])

    def test_deliveries_at_once_share_a_read(self):
        receiver = self.ready()
        self.gateway.state = set_of(2)
        self.gateway.gate.clear()
        answers = self.deliver_at_once(receiver, [2] * 20)
        eventually("one reads", lambda: len(self.gateway.reads) == 2)
        self.gateway.gate.set()
        self.assertEqual([answer.applied for answer in answers()], ["2"] * 20)
        self.assertEqual(self.gateway.paths(), ["", "?rev=2"])

    def test_a_newer_delivery_during_a_read_is_applied(self):
        receiver = self.ready()
        old, new = set_of(2), set_of(3, dark_mode=(True, "newest"))
        self.gateway.gate.clear()

        def older(handler):
            self.gateway.state = old
            self.gateway.answer(handler)
            self.gateway.state = new

        self.gateway.script.append(older)
        first = self.deliver_at_once(receiver, [2])
        eventually("the older one is read", lambda: self.gateway.paths() == ["", "?rev=2"])
        second = self.deliver_at_once(receiver, [3])
        self.wait_for_want(receiver, 3)
        self.gateway.gate.set()
        self.assertEqual(first()[0].status, 200)
        self.assertEqual((second()[0].status, second()[0].applied), (200, "3"))
        self.assertEqual(self.gateway.paths(), ["", "?rev=2", "?rev=3"])
        self.assertEqual(receiver.value("dark-mode"), "newest")

    def test_a_newer_delivery_during_a_failing_read_does_not_wait(self):
        receiver = self.ready()
        self.gateway.gate.clear()
        self.gateway.state = set_of(3)
        self.gateway.script.append(
            lambda handler: reply(handler, 503, b"", {"Retry-After": "3600"})
        )
        first = self.deliver_at_once(receiver, [2])
        eventually("the older one is read", lambda: len(self.gateway.reads) == 2)
        second = self.deliver_at_once(receiver, [3])
        self.wait_for_want(receiver, 3)
        self.gateway.gate.set()
        self.assertEqual(second()[0].status, 200)
        self.assertEqual(first()[0].applied, "3")

    def test_a_delivery_ends_a_long_wait(self):
        receiver = self.ready(answer_timeout=0.2)
        refuse = [lambda handler: reply(handler, 503, b"", {"Retry-After": "3600"})]
        self.gateway.script += refuse
        self.gateway.state = set_of(2)
        self.assertEqual(self.deliver(receiver, 2).status, 503)
        self.assertEqual(len(self.gateway.reads), 2)
        # The gateway's next try, long before the hour is over.
        self.assertIn(self.deliver(receiver, 2).status, (200, 503))
        eventually("it is fetched at once", lambda: receiver.revision == 2)

    def test_the_poll_asks_whether_anything_is_new(self):
        receiver = self.ready(poll_seconds=0.02)
        eventually("it polls", lambda: len(self.gateway.reads) > 3)
        headers = self.gateway.reads[-1][1]
        self.assertEqual(headers["If-None-Match"], '"1-1.0"')
        self.assertEqual(set(self.gateway.paths()), {""})
        self.gateway.state = set_of(2, dark_mode=(True, None))
        # A delivery that was lost.
        eventually("the poll heals it", lambda: receiver.enabled("dark-mode"))

    def test_without_a_poll(self):
        self.ready(poll_seconds=0)
        time.sleep(0.1)
        self.assertEqual(len(self.gateway.reads), 1)

    @mock.patch("flagcast.pace.FIRST", (0.05,) * 12)
    def test_a_poll_that_fails_is_tried_again(self):
        receiver = self.ready(poll_seconds=0.02)
        self.gateway.stop()
        eventually("it is told once", self.warnings)
        self.gateway.state = set_of(2)
        self.gateway.restart()
        eventually("it comes back", lambda: receiver.revision == 2)

    def test_the_gateway_is_down_at_the_start(self):
        self.gateway.stop()
        receiver = self.receiver()
        self.assertFalse(receiver.wait_ready(0.05))
        self.assertFalse(receiver.ready)
        self.assertTrue(receiver.enabled("dark-mode", True))
        self.assertEqual(receiver.value("banner", "fallback"), "fallback")
        self.assertEqual(dict(receiver.flags()), {})
        self.assertIsNone(receiver.revision)
        self.assertIsNone(receiver.updated_at)
        self.gateway.restart()
        self.assertTrue(receiver.wait_ready(SOON))
        self.assertEqual(receiver.value("banner", "fallback"), "hello")

    @mock.patch("flagcast.pace.FIRST", (0.01,) * 12)
    def test_failures_are_told_once_in_a_row(self):
        self.gateway.stop()
        receiver = self.receiver()
        receiver.start()
        eventually("it is told", self.warnings)
        self.assertIn("flags cannot be read", self.warnings()[0])
        eventually("it goes on trying", lambda: len(self.log) >= 6)
        self.assertEqual(len(self.warnings()), 1)
        self.gateway.restart()

    def deliver_at_once(self, receiver, revisions):
        """Delivers on threads; what is returned waits for the answers."""
        answers = [None] * len(revisions)

        def deliver(at):
            answers[at] = self.deliver(receiver, revisions[at])

        threads = [threading.Thread(target=deliver, args=(at,)) for at in range(len(revisions))]
        for thread in threads:
            thread.start()

        def collect():
            for thread in threads:
                thread.join(SOON)
            return answers

        return collect

    def wait_for_want(self, receiver, revision):
        wanted = receiver.engine()._refetcher
        eventually("it is wanted", lambda: wanted._wanted and wanted._wanted.revision == revision)


class Waits(unittest.TestCase):
    def test_the_first_tries_fit_into_a_delivery(self):
        self.assertLess(sum(FIRST) * 1.2, 8)

    def test_waits_grow_to_their_limit(self):
        pace = Pace(300)
        for failures in range(1, 5000):
            for _ in range(3 if failures > 20 else 50):
                wait = pace.until_retry(failures, 0)
                usual = (
                    FIRST[failures - 1]
                    if failures <= len(FIRST)
                    else 2 * 2.0 ** min(failures - len(FIRST), 9)
                )
                usual = min(usual, LONGEST)
                self.assertTrue(0.8 * usual <= wait <= min(1.2 * usual, LONGEST), (failures, wait))

    def test_waits_are_not_all_the_same(self):
        pace = Pace(300)
        self.assertGreater(len({pace.until_retry(3, 0) for _ in range(20)}), 10)
        polls = {pace.until_poll() for _ in range(200)}
        self.assertGreater(len(polls), 100)
        self.assertTrue(240 <= min(polls) < 260 < 340 < max(polls) <= 360)

    def test_what_an_answer_asks_is_kept_within_bounds(self):
        pace = Pace(300)
        self.assertEqual(pace.until_retry(1, 1), 1)
        self.assertEqual(pace.until_retry(1, 86400), LONGEST)
        self.assertGreater(pace.until_retry(6, 1), 1)

    def test_zero_is_never(self):
        self.assertFalse(Pace(0).polls)
        self.assertTrue(Pace(0.5).polls)


class Copies(unittest.TestCase):
    def test_what_is_stored_is_what_was_held(self):
        values = {
            "a": (True, None),
            "b": (False, "ä\u2028"),
            "c": (True, 1.5),
            "d": (True, [1, {}]),
        }
        copy = from_answer(json.dumps(set_of(7, 1763790000.015625, **values)).encode(), '"e"')
        again = from_stored(to_stored(copy, "key"), "key")
        self.assertEqual(again, copy._replace(etag=None))
        self.assertEqual(again.updated_at, 1763790000.015625)

    def test_of_another_environment(self):
        copy = from_answer(json.dumps(set_of(7)).encode())
        with self.assertRaisesRegex(NotACopy, "'key'"):
            from_stored(to_stored(copy, "key"), "other")

    def test_flags_cannot_be_changed(self):
        copy = from_answer(json.dumps(set_of(7, a=(True, None))).encode())
        with self.assertRaises(TypeError):
            copy.flags["a"] = None
        with self.assertRaises(AttributeError):
            copy.flags["a"].enabled = False
