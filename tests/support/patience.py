"""How much longer than promised a test waits before it fails.

A promise in seconds holds on a machine that has time; a test runs beside others on two noisy cores, where it
shall fail for what does not come, not for what comes late. The chaos report measures the seconds themselves.
"""

import os
from typing import Final

PATIENCE: Final = float(os.environ.get("OEE_TEST_PATIENCE", "6"))
