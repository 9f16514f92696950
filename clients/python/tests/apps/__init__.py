"""Apps as their developers write them, for the servers of `test_frameworks.py`.

Each mounts the receiver in the one line that README.md shows.
"""
