"""Feature flags in the memory of a server app, kept up to date by signed webhooks of Flagcast.

`Receiver` is all that an app needs; README.md shows how it is mounted.
"""

from .copy import Flag
from .receiver import Receiver
from .store import FileStore, Store

__all__ = ["FileStore", "Flag", "Receiver", "Store", "__version__"]

__version__ = "0.1.0"
