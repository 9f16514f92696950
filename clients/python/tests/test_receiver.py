"""What an app has in its hands: look-ups, listeners, options, the end, and forks."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from unittest import mock

import flagcast
from flagcast import Flag, Receiver
from flagcast.replay import Seen
from flagcast.signature import Attempt

from .world import CLIENT_KEY, OLD_SECRET, SECRET, SOON, WithWorld, eventually, set_of

FOLDER = Path(__file__).parents[1]


class LookUps(WithWorld):
    def test_known_and_unknown_flags(self):
        self.gateway.state = set_of(
            3, on=(True, None), off=(False, "x"), zero=(True, 0), empty=(True, ""), no=(True, False)
        )
        flags = self.ready()
        self.assertEqual(
            [flags.enabled(flag) for flag in ("on", "off", "unknown")], [True, False, False]
        )
        self.assertEqual(
            [flags.enabled(flag, True) for flag in ("on", "off", "unknown")], [True, False, True]
        )
        self.assertIsNone(flags.value("on"))
        # Off or on, a value is a value; none, and the default it is.
        values = {name: flags.value(name, 7) for name in ("on", "off", "zero", "empty", "no", "?")}
        self.assertEqual(values, {"on": 7, "off": "x", "zero": 0, "empty": "", "no": False, "?": 7})
        self.assertEqual(flags.flags()["off"], Flag(enabled=False, value="x"))
        self.assertEqual(len(flags.flags()), 5)
        with self.assertRaises(TypeError):
            flags.flags()["on"] = None

    def test_a_set_that_was_taken_does_not_change(self):
        flags = self.ready()
        taken = flags.flags()
        self.gateway.state = set_of(2, dark_mode=(True, None))
        self.deliver(flags, 2)
        self.assertEqual(set(taken), {"dark-mode", "banner"})
        self.assertEqual(set(flags.flags()), {"dark-mode"})

    def test_look_ups_take_no_lock(self):
        flags = self.ready()
        locks = (flags._lock, flags._held._lock, flags.engine()._refetcher._changed)
        for lock in locks:
            lock.acquire()
        try:
            done = []
            thread = threading.Thread(
                target=lambda: done.append((flags.enabled("banner"), flags.value("banner"))),
                daemon=True,
            )
            thread.start()
            thread.join(SOON)
            self.assertEqual(done, [(True, "hello")])
        finally:
            for lock in locks:
                lock.release()

    def test_a_first_look_up_begins(self):
        for ask in (
            lambda flags: flags.enabled("banner"),
            lambda flags: flags.value("banner"),
            lambda flags: flags.flags(),
            lambda flags: flags.start(),
        ):
            flags = self.receiver()
            reads = len(self.gateway.reads)
            self.assertEqual(threads_of(flags), [])
            ask(flags)
            eventually("it reads", lambda before=reads: len(self.gateway.reads) > before)

    def test_no_more_threads(self):
        flags = self.receiver()
        with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start")):
            self.assertTrue(flags.enabled("banner", True))
        self.assertIn("not kept up to date", self.warnings()[0])

    def test_a_set_is_whole(self):
        """Look-ups while sets are swapped: two flags of one mapping are of one revision."""
        self.gateway.state = set_of(1, a=(True, 1), b=(True, 1))
        flags = self.ready()
        ended, torn = threading.Event(), []

        def look():
            while not ended.is_set():
                both = flags.flags()
                if both["a"].value != both["b"].value:
                    torn.append(both)

        thread = threading.Thread(target=look)
        thread.start()
        for revision in range(2, 30):
            self.gateway.state = set_of(revision, a=(True, revision), b=(True, revision))
            self.assertEqual(self.deliver(flags, revision).applied, str(revision))
        ended.set()
        thread.join(SOON)
        self.assertEqual(torn, [])


class Listeners(WithWorld):
    def test_they_are_called_after_a_change(self):
        flags = self.receiver()
        told = []
        end = flags.on_change(lambda flags: told.append(flags.revision))
        flags.start()
        eventually("the first set is a change", lambda: told == [1])
        self.gateway.state = set_of(2)
        self.deliver(flags, 2)
        eventually("so is the second", lambda: told == [1, 2])
        end()
        end()
        later = []
        flags.on_change(lambda flags: later.append(flags.revision))
        self.gateway.state = set_of(3)
        self.deliver(flags, 3)
        eventually("another listens", lambda: later == [3])
        self.assertEqual(told, [1, 2])

    def test_one_that_raises_disturbs_nobody(self):
        flags = self.receiver()
        told = []
        flags.on_change(lambda _: 1 / 0)
        flags.on_change(lambda flags: told.append(flags.revision))
        for revision in (2, 3):
            self.gateway.state = set_of(revision)
            self.assertEqual(self.deliver(flags, revision).status, 200)
            eventually("the other is told", lambda revision=revision: revision in told)
        self.assertIn("listener", self.warnings()[0])

    def test_one_that_hangs_holds_no_delivery_up(self):
        flags = self.ready()
        hang = threading.Event()
        self.addCleanup(hang.set)
        flags.on_change(lambda _: hang.wait(SOON))
        for revision in (2, 3):
            self.gateway.state = set_of(revision)
            self.assertEqual(self.deliver(flags, revision).status, 200)

    def test_one_may_close(self):
        flags = self.ready()
        flags.on_change(lambda flags: flags.close())
        self.gateway.state = set_of(2)
        self.deliver(flags, 2)
        eventually("threads end", lambda: threads_of(flags) == [])


class Ends(WithWorld):
    def test_close_ends_the_threads(self):
        flags = self.ready(poll_seconds=0.01)
        self.assertEqual(len(threads_of(flags)), 2)
        flags.close()
        self.assertEqual(threads_of(flags), [])
        flags.close()
        self.assertEqual(flags.value("banner"), "hello")
        self.assertTrue(flags.wait_ready(0))

    def test_close_ends_a_read_and_a_wait(self):
        flags = self.ready()
        self.gateway.gate.clear()
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.deliver(flags, 2)))
        thread.start()
        eventually("it reads", lambda: len(self.gateway.reads) == 2)
        begun = time.monotonic()
        flags.close()
        thread.join(SOON)
        self.assertLess(time.monotonic() - begun, 4)
        self.assertEqual(answers[0].status, 503)
        self.assertEqual(threads_of(flags), [])

    def test_a_delivery_after_the_end(self):
        flags = self.ready()
        flags.close()
        self.gateway.state = set_of(2)
        begun = time.monotonic()
        self.assertEqual(self.deliver(flags, 2).status, 503)
        self.assertLess(time.monotonic() - begun, 4)
        self.assertEqual(len(self.gateway.reads), 1)

    def test_close_before_the_beginning(self):
        flags = self.receiver()
        flags.close()
        self.assertFalse(flags.enabled("banner"))
        self.assertFalse(flags.wait_ready(SOON))
        self.assertEqual(self.deliver(flags, 2).status, 503)
        self.assertEqual(threads_of(flags), [])
        self.assertEqual(self.gateway.reads, [])

    def test_a_process_ends_without_close(self):
        program = (
            "import flagcast, sys\n"
            f"flags = flagcast.Receiver(url={self.gateway.url!r}, client_key={CLIENT_KEY!r},"
            f" secret={SECRET!r})\n"
            f"sys.exit(0 if flags.wait_ready({SOON}) else 1)\n"
        )
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-c", program],
            cwd=FOLDER,
            capture_output=True,
            timeout=SOON,
        )
        self.assertEqual((done.returncode, done.stderr), (0, b""))


@unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")
class Forks(WithWorld):
    def child(self, check):
        """What `check` returned in a child process, as text."""
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                # Whatever hangs, no child stays behind.
                signal.alarm(2 * SOON)
                answer = check()
            except BaseException as error:
                answer = repr(error)
            os.write(writer, str(answer).encode())
            os._exit(0)
        os.close(writer)
        with open(reader) as answer:
            text = answer.read()
        os.waitpid(child, 0)
        return text

    def test_a_child_has_the_copy_and_threads_of_its_own(self):
        flags = self.ready()
        self.gateway.state = set_of(2, banner=(True, "newer"))

        def check():
            known = flags.value("banner")
            eventually("the child reads", lambda: flags.value("banner") == "newer")
            return known, len(threads_of(flags))

        self.assertEqual(self.child(check), "('hello', 2)")
        self.assertEqual(flags.value("banner"), "hello")

    def test_a_fork_while_every_lock_is_taken(self):
        """As it may happen: a thread of the parent holds them, and the child has no such thread."""
        flags = self.ready()
        self.gateway.state = set_of(2, banner=(True, "newer"))
        engine = flags.engine()
        locks = (
            flags._lock,
            flags._held._lock,
            engine.seen._lock,
            engine._refetcher._changed,
            engine._keeper._woken,
        )
        for lock in locks:
            lock.acquire()

        def check():
            flags.on_change(lambda _: None)
            return self.deliver(flags, 2).status

        try:
            self.assertEqual(self.child(check), "200")
        finally:
            for lock in locks:
                lock.release()

    def test_a_child_takes_what_was_stored_since(self):
        directory = tempfile.TemporaryDirectory()
        # After the receiver is closed: it would store the copy again.
        self.addCleanup(directory.cleanup)
        path = os.path.join(directory.name, "flags.json")
        flags = self.ready(store=path)
        eventually("it is stored", lambda: os.path.exists(path))
        self.gateway.state = set_of(2, banner=(True, "newer"))
        self.deliver(flags, 2)

        def check():
            eventually("the child has it", lambda: flags.value("banner") == "newer")
            return "converged"

        eventually("that, too", lambda: '"revision":2' in Path(path).read_text())
        self.gateway.stop()
        # What the child inherits is as old as the parent's copy.
        flags._held.copy = flags._held.copy._replace(updated_at=0.0, flags={})
        self.assertEqual(self.child(check), "converged")
        self.gateway.restart()

    def test_a_child_of_a_closed_one_stays_closed(self):
        flags = self.ready()
        flags.close()
        self.assertEqual(self.child(lambda: len(threads_of(flags))), "0")
        self.assertEqual(self.child(lambda: flags.start() or len(threads_of(flags))), "0")


class Opts(unittest.TestCase):
    def make(self, **options):
        given = {"url": "https://flags.example.com", "client_key": CLIENT_KEY, "secret": SECRET}
        return Receiver(**{**given, **options})

    def test_options_that_cannot_be(self):
        for name, values in {
            "url": ["", "flags.example.com", "ftp://x", "https://", "http://x/?a", "http://x/#a",
                    "http:// x", "https://user:pass@x", "http://x:port", None, 7],
            "client_key": ["", None, 7, "ser.abc"],
            "secret": ["", "hunter2", None, [], ["whsec_"], 7],
            "store": ["", ".", 7, object()],
            "poll_seconds": [-1, "300", None, float("nan"), float("inf"), True],
            "read_timeout": [0, -1, "5", None],
            "answer_timeout": [0, -1, None],
        }.items():  # fmt: skip
            for value in values:
                with self.subTest(name, value=value):
                    with self.assertRaises((ValueError, TypeError)) as raised:
                        self.make(**{name: value})
                    # What, the rule, and the next step.
                    self.assertRegex(str(raised.exception), rf"^{name}: .+; ?.+")
                    self.assertNotIn("pass@", str(raised.exception))
                    self.assertNotIn("hunter2", str(raised.exception))

    def test_options_that_may_be(self):
        for url in ("http://x", "https://x:8443/base/", "http://[::1]:80", "https://x//"):
            self.make(url=url)
        self.assertEqual(self.make(url="http://x/a/").options.url, "http://x/a")
        self.make(secret=[SECRET, OLD_SECRET])
        self.make(poll_seconds=0)
        with self.assertRaises(TypeError):
            self.make(pol_seconds=3)

    def test_secrets_do_not_show(self):
        receiver = self.make(secret=[SECRET, OLD_SECRET])
        shown = f"{receiver!r} {receiver} {receiver.options!r} {receiver.engine.__self__!r}"
        for secret in (SECRET, OLD_SECRET):
            self.assertNotIn(secret, shown)
            self.assertNotIn(secret[6:20], shown)
        self.assertIn("flags.example.com", repr(receiver))

    def test_nothing_begins_before_it_is_used(self):
        before = threading.active_count()
        self.make()
        self.assertEqual(threading.active_count(), before)

    def test_the_default_logger(self):
        self.assertIs(self.make().options.logger, logging.getLogger("flagcast"))

    def test_the_version_is_said_once(self):
        text = (FOLDER / "pyproject.toml").read_text()
        self.assertIn(f'version = "{flagcast.__version__}"', text)
        self.assertIn(
            f'"Flagcast-Python/{flagcast.__version__}"', (FOLDER / "flagcast/read.py").read_text()
        )


class Replays(unittest.TestCase):
    def test_memory_is_bounded_by_time(self):
        seen = Seen()
        for second in range(5000):
            self.assertTrue(seen.add(Attempt(f"msg_{second}", second), second))
        self.assertLessEqual(len(seen), 602)
        # As long as it could be played again, it is known.
        self.assertFalse(seen.add(Attempt("msg_4400", 4400), 4999))

    def test_one_that_was_ahead_of_our_clock(self):
        seen = Seen()
        ahead = Attempt("msg_1", 1300)
        self.assertTrue(seen.add(ahead, 1000))
        seen.add(Attempt("msg_2", 1590), 1590)
        self.assertFalse(seen.add(ahead, 1600))

    def test_memory_is_bounded_by_count(self):
        seen = Seen(most=3)
        for number in range(10):
            self.assertTrue(seen.add(Attempt(f"msg_{number}", 5), 5))
        self.assertLessEqual(len(seen), 3)
        self.assertFalse(seen.add(Attempt("msg_9", 5), 5))

    def test_at_once_only_one_is_first(self):
        seen, firsts = Seen(), []
        barrier = threading.Barrier(8)

        def add():
            barrier.wait()
            firsts.append(seen.add(Attempt("msg_1", 5), 5))

        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(firsts.count(True), 1)


def threads_of(flags):
    """The threads of a receiver that are alive in this process."""
    engine = flags._engine
    if engine is None:
        return []
    threads = (engine._refetcher._thread, engine._keeper._thread)
    return [thread for thread in threads if thread.is_alive()]
