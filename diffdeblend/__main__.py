"""`python -m diffdeblend`: the command line, where the script is not on the path."""

from diffdeblend.cli import run

run()
