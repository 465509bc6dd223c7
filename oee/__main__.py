"""The `oee` command."""

import sys

from oee.errors import told


def main() -> None:
    """Run the command line and leave with its exit code."""
    from oee.cli import app

    sys.exit(told(app))


if __name__ == "__main__":
    main()
