"""``python -m prophy``: the same as the ``prophy`` command."""

import sys

from prophy.cli import main

sys.exit(main())
