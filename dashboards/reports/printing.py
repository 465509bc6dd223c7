"""Sets a page as PDF, from standard input to standard output: `python -m dashboards.reports.printing`."""

import sys

from dashboards.reports import paper

if __name__ == "__main__":
    sys.stdout.buffer.write(paper.pdf(sys.stdin.buffer.read().decode()))
