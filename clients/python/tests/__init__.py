"""Tests of the receiver. From `clients/python`: `python -m unittest discover -s tests -t .`"""

import os

# Everything is on loopback; a proxy of the machine must not come between.
os.environ["no_proxy"] = "*"
