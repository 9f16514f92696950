import json
import os
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path

from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

FIXTURE = Path(__file__).with_name("flags.json")


class WithFlags(unittest.TestCase):
    """A gateway of its own for the tests of a class, on a free port."""

    @classmethod
    def setUpClass(cls):
        free = {"FLAGCAST_SERVER__LISTEN": "127.0.0.1:0", "FLAGCAST_SERVER__OPS_LISTEN": "127.0.0.1:0"}
        cls.gateway = subprocess.Popen(
            [os.environ.get("FLAGCAST", "flagcast"), "serve", "--fixture", FIXTURE],
            env=os.environ | free,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        cls.url = next(line.split()[1] for line in cls.gateway.stdout if line.startswith("  URL:"))

    @classmethod
    def tearDownClass(cls):
        cls.gateway.terminate()
        cls.gateway.wait()
        cls.gateway.stdout.close()

    def test_remote_evaluation(self):
        flags = Flagsmith(environment_key="ser.test", api_url=f"{self.url}/api/v1/")
        self.assertTrue(flags.get_environment_flags().is_feature_enabled("new-checkout"))
        somebody = flags.get_identity_flags("ada", {"plan": "pro"})
        self.assertEqual(somebody.get_feature_value("banner"), "Welcome, professional!")
        self.assertFalse(flags.get_identity_flags("tester").is_feature_enabled("new-checkout"))

    def test_local_evaluation(self):
        flags = Flagsmith(
            environment_key="ser.test",
            api_url=f"{self.url}/api/v1/",
            enable_local_evaluation=True,
        )
        somebody = flags.get_identity_flags("ada", {"plan": "pro"})
        self.assertEqual(somebody.get_feature_value("banner"), "Welcome, professional!")

    def test_without_a_process(self):
        """With a document that was saved before: here from the fixture, else from production."""
        request = urllib.request.Request(
            f"{self.url}/api/v1/environment-document/", headers={"X-Environment-Key": "ser.test"}
        )
        with tempfile.TemporaryDirectory() as directory:
            saved = Path(directory, "environment.json")
            with urllib.request.urlopen(request) as answer:
                saved.write_text(json.dumps(json.load(answer)))
            flags = Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(saved))
        self.assertEqual(flags.get_environment_flags().get_feature_value("page-size"), 24)


if __name__ == "__main__":
    unittest.main()
