"""The stored copy: starting from it, its faults, and processes that share it."""

import json
import os
import stat
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

from flagcast import FileStore
from flagcast.copy import from_answer
from flagcast.store import Shelf

from .world import CLIENT_KEY, SOON, WithWorld, eventually, set_of


class WithFile(WithWorld):
    def setUp(self):
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "flags.json")

    def stored(self):
        """What the file has, as JSON; `None` when it has none."""
        try:
            return json.loads(FileStore(self.path).load() or b"null")
        except ValueError:
            return None

    def store(self, state, client_key=CLIENT_KEY):
        FileStore(self.path).save(json.dumps({"client_key": client_key, **state}))

    def saved(self, revision):
        eventually(
            f"revision {revision} is stored",
            lambda: (self.stored() or {}).get("revision") == revision,
        )


class Files(WithFile):
    def test_each_change_is_stored(self):
        receiver = self.ready(store=self.path)
        self.saved(1)
        self.gateway.state = set_of(2, dark_mode=(True, "night"))
        self.assertEqual(self.deliver(receiver, 2).status, 200)
        self.saved(2)
        self.assertEqual(self.stored(), {"client_key": CLIENT_KEY, **self.gateway.state})

    def test_only_the_owner_may_read_it(self):
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.ready(store=str(self.path))
        self.saved(1)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        # Nothing is left beside it.
        self.assertEqual(os.listdir(self.path.parent), ["flags.json"])

    def test_folders_are_made(self):
        self.path = self.path.parent / "a" / "b" / "flags.json"
        self.ready(store=self.path)
        self.saved(1)

    def test_a_start_while_the_gateway_is_down(self):
        self.gateway.stop()
        self.store(set_of(7, dark_mode=(True, "stored")))
        receiver = self.receiver(store=self.path)
        # At once: nothing has begun yet.
        self.assertTrue(receiver.ready)
        self.assertEqual((receiver.revision, receiver.updated_at), (7, 7.0))
        self.assertTrue(receiver.enabled("dark-mode"))
        self.assertTrue(receiver.wait_ready(0))
        self.gateway.state = set_of(8)
        self.gateway.restart()
        eventually("it is read in the background", lambda: receiver.revision == 8)

    def test_an_older_gateway_does_not_undo_the_copy(self):
        self.store(set_of(7, 7.0))
        receiver = self.receiver(store=self.path)
        receiver.start()
        eventually("it reads", lambda: self.gateway.reads)
        self.gateway.state = set_of(8)
        self.deliver(receiver, 8)
        self.assertEqual(receiver.revision, 8)

    def test_copies_that_are_no_good(self):
        good = json.dumps({"client_key": CLIENT_KEY, **set_of(7, a=(True, 1))}).encode()
        for text in (b"", b"\x00\xff", good[:-9], b"[]", good.replace(b"true", b"null"), b"{}"):
            with self.subTest(text):
                self.path.write_bytes(text)
                self.log.clear()
                receiver = self.receiver(store=self.path)
                self.assertFalse(receiver.ready)
                self.assertEqual(len(self.warnings()), 1)
                self.assertIn("is ignored", self.warnings()[0])
                self.assertTrue(receiver.wait_ready(SOON))
                self.saved(1)
                receiver.close()

    def test_a_copy_of_another_environment(self):
        self.store(set_of(7, dark_mode=(True, None)), client_key="other")
        receiver = self.receiver(store=self.path)
        self.assertFalse(receiver.ready)
        self.assertIn("'other'", self.warnings()[0])

    def test_a_file_that_cannot_be_read(self):
        with mock.patch.object(FileStore, "load", side_effect=PermissionError("no")):
            receiver = self.ready(store=self.path)
            self.assertTrue(receiver.value("banner"))
        self.assertIn("cannot be read", self.warnings()[0])

    def test_a_file_that_cannot_be_written(self):
        with mock.patch("os.replace", side_effect=OSError("full")):
            receiver = self.ready(store=self.path)
            eventually("it is told", self.warnings)
            self.gateway.state = set_of(2)
            self.assertEqual(self.deliver(receiver, 2).status, 200)
            receiver.close()
        self.assertIn("cannot be stored", self.warnings()[0])
        # Half a file is not left behind.
        self.assertEqual(os.listdir(self.path.parent), [])

    def test_it_is_tried_again_after_a_while(self):
        replace, faults = os.replace, [OSError("full"), OSError("full")]

        def failing(*arguments):
            if faults:
                raise faults.pop()
            replace(*arguments)

        with mock.patch("os.replace", failing), mock.patch("flagcast.keep.RETRY_SECONDS", 0.02):
            self.ready(store=self.path)
            self.saved(1)

    def test_a_hanging_store_holds_nobody_up(self):
        hang = threading.Event()
        self.addCleanup(hang.set)

        class Hanging:
            def load(self):
                return None

            def save(self, text):
                hang.wait(SOON)

        receiver = self.ready(store=Hanging())
        for revision in (2, 3):
            self.gateway.state = set_of(revision)
            self.assertEqual(self.deliver(receiver, revision).status, 200)

    def test_a_crash_while_it_is_written_leaves_the_old_one(self):
        store = FileStore(self.path)
        store.save("old")
        with (
            mock.patch("os.fsync", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            store.save("new")
        self.assertEqual(store.load(), b"old")
        self.assertEqual(os.listdir(self.path.parent), ["flags.json"])

    @mock.patch("os.fsync", lambda descriptor: None)
    def test_close_stores_what_the_other_thread_has_not_heard_of(self):
        receiver = self.ready(store=self.path)
        self.saved(1)
        receiver._held._followers.clear()
        self.gateway.state = set_of(2)
        self.deliver(receiver, 2)
        receiver.close()
        self.assertEqual(self.stored()["revision"], 2)

    # A disk that is busy may take longer than `close` waits; then there is the copy of before.
    @mock.patch("os.fsync", lambda descriptor: None)
    def test_close_stores_what_is_held(self):
        for revision in range(2, 12):
            receiver = self.ready(store=self.path)
            self.gateway.state = set_of(revision)
            self.deliver(receiver, revision)
            receiver.close()
            self.assertEqual(self.stored()["revision"], revision)


class Shared(WithFile):
    """Receivers with one file, as the processes of a server are."""

    def test_a_delivery_to_one_reaches_all(self):
        receivers = [self.ready(store=self.path) for _ in range(3)]
        # Each reads once when it begins.
        eventually("all have read", lambda: len(self.gateway.reads) == 3)
        self.saved(1)
        for revision in (2, 3, 4):
            self.gateway.state = set_of(revision, dark_mode=(True, revision))
            self.assertEqual(self.deliver(receivers[revision - 2], revision).status, 200)
            for receiver in receivers:
                eventually(
                    "it has converged", lambda held=receiver: held.value("dark-mode") == revision
                )
        # The others read the file, not the gateway.
        self.assertEqual(len(self.gateway.reads), 6)

    def test_listeners_of_the_others_are_called(self):
        one, two = self.ready(store=self.path), self.ready(store=self.path)
        told = []
        two.on_change(lambda flags: told.append(flags.revision))
        self.gateway.state = set_of(2)
        self.deliver(one, 2)
        eventually("the other is told", lambda: told[-1:] == [2])

    def test_the_newest_wins(self):
        self.store(set_of(9, 9.0))
        shelf = Shelf(FileStore(self.path), CLIENT_KEY, self.logger)
        older = from_answer(json.dumps(set_of(10, 8.0)).encode())
        self.assertTrue(shelf.save(older))
        self.assertEqual(self.stored()["revision"], 9)
        self.assertTrue(shelf.save(older._replace(updated_at=9.5)))
        self.assertEqual(self.stored()["updated_at"], 9.5)

    def test_an_older_file_is_replaced(self):
        """Two that stored at the same time may have left the older one."""
        self.gateway.state = set_of(5)
        receiver = self.ready(store=self.path)
        self.saved(5)
        self.store(set_of(4))
        self.saved(5)
        self.assertEqual(receiver.revision, 5)

    def test_a_file_that_is_gone_is_written_again(self):
        self.ready(store=self.path)
        self.saved(1)
        self.path.unlink()
        self.saved(1)

    def test_a_file_of_another_environment_is_left_alone(self):
        self.ready(store=self.path)
        self.saved(1)
        self.store(set_of(4), client_key="other")
        eventually("it is told", self.warnings)
        # Two apps that share a file by mistake do not write in turns for ever.
        time.sleep(1.2)
        self.assertEqual(self.stored()["client_key"], "other")
        self.assertEqual(len(self.warnings()), 1)

    def test_a_newer_file_satisfies_a_delivery(self):
        one = self.ready(store=self.path)
        self.saved(1)
        self.gateway.gate.clear()
        answers = []
        thread = threading.Thread(target=lambda: answers.append(self.deliver(one, 2)))
        thread.start()
        eventually("it reads", lambda: len(self.gateway.reads) == 2)
        self.store(set_of(2))
        thread.join(SOON)
        self.assertEqual((answers[0].status, answers[0].applied), (200, "2"))


class Given(WithWorld):
    """Stores of the app."""

    def test_load_and_save(self):
        class Memory:
            text = None

            def load(self):
                return self.text

            def save(self, text):
                Memory.text = text

        self.ready(store=Memory()).close()
        self.gateway.stop()
        receiver = self.receiver(store=Memory())
        self.assertEqual(receiver.value("banner"), "hello")
        self.gateway.restart()

    def test_a_store_with_marks_is_watched(self):
        class Shared:
            text, marks = None, 0

            def load(self):
                return Shared.text

            def save(self, text):
                Shared.text = text
                Shared.marks += 1

            def mark(self):
                return Shared.marks

        one, two = self.ready(store=Shared()), self.ready(store=Shared())
        self.gateway.state = set_of(2)
        self.deliver(one, 2)
        eventually("the other has it", lambda: two.revision == 2)

    def test_what_is_lost_as_soon_as_it_is_saved_is_saved_again(self):
        class Forgetful:
            saves, text = 0, None

            def load(self):
                return self.text

            def save(self, text):
                self.saves += 1
                self.text = None if self.saves == 1 else text

            def mark(self):
                return self.text

        store = Forgetful()
        self.ready(store=store)
        eventually("it is there", lambda: store.text)

    def test_faults_of_every_kind(self):
        class Faulty:
            def load(self):
                raise RuntimeError("load")

            def save(self, text):
                raise RuntimeError("save")

            def mark(self):
                raise RuntimeError("mark")

        receiver = self.ready(store=Faulty())
        self.gateway.state = set_of(2)
        self.assertEqual(self.deliver(receiver, 2).status, 200)
        eventually("it is told", lambda: len(self.warnings()) >= 2)

    def test_texts_of_any_kind(self):
        for text in (7, b"\xff", "x", [], {}):

            class Odd:
                def load(self, text=text):
                    return text

                def save(self, text):
                    pass

            self.assertFalse(self.receiver(store=Odd()).ready)
