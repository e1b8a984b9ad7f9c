"""`python -m diffdeblend`: the command line, where the script is not on the path."""

import sys

from diffdeblend.cli import main

sys.exit(main())
