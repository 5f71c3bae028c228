"""The Space's door, with the flags of ``prophy app``; ``prophy app`` on one's own machine."""

import sys

from prophy.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
