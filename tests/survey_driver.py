"""A run of a survey in a process of its own: `survey_driver.py STORE OUT WORKERS CACHE`.

WORKERS is a number, or the file of a scheduler. Prints a line for each batch.
"""

import signal
import sys

from survey_stars import SETTINGS

from diffdeblend.survey import fit_survey, on_cluster


def main():
    """Fit, and say at the end whether JAX was started here."""
    store, out, where, cache = sys.argv[1:]
    engine = on_cluster(int(where)) if where.isdigit() else on_cluster(scheduler_file=where)

    def report(done, total):
        print(done.run.start, done.run.stop, total, flush=True)

    fit_survey(store, out, SETTINGS, batch=1, engine=engine, cache=cache, report=report)
    from jax._src import xla_bridge

    print("started" if xla_bridge.backends_are_initialized() else "not started", flush=True)


if __name__ == "__main__":
    # A shell that starts it in the background has it ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
