"""Hostile bytes for minutes on end: `python -m tests.fuzz --secs 600`."""
