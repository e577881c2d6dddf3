"""Inject all faults, print the table; exit code 1 if one was not survived."""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tools.faults import __doc__ as explanation
from tools.faults.promises import CAMPAIGN
from tools.faults.workplace import Workplace

PROMISES = {
    1: "a file under its final name is whole",
    2: "a rerun does what is missing, with the same result",
    3: "a second run changes no file, loads no network",
    4: "done means made from the same",
    5: "a broken file is noticed, named, made again",
    6: "a bad image stops no other",
    7: "no segment, one image, none: done",
    8: "a process that dies costs its image only",
    9: "disk full, read-only, no permission: one sentence",
    10: "two runs at once, shards",
    11: "any number of processes, order, batch size",
    12: "nothing that is read can run code",
    13: "SIGINT, SIGTERM: a clean stop",
    14: "memory does not grow with the number of images",
}


def main():
    parser = argparse.ArgumentParser(description=explanation)
    parser.add_argument("--small", action="store_true", help="the short form, as in the tests")
    is_small = parser.parse_args().small
    os.environ["OMP_NUM_THREADS"] = "1"  # for the stages: two of them run at a time
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning"  # of what killed processes leave
    start, outcomes = time.monotonic(), defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        place = Workplace(folder, is_small)
        with ThreadPoolExecutor(2) as pool:
            for results in pool.map(partial(outcomes_of, place=place), CAMPAIGN):
                for promise, problems in results:
                    outcomes[promise].append(problems)
    print(f"{'promise':56} {'faults':>6} {'survived':>8}")
    for number, promise in PROMISES.items():
        survived = sum(not problems for problems in outcomes[number])
        print(f"{number:2} {promise:53} {len(outcomes[number]):6} {survived:8}")
    for number, problems in sorted(outcomes.items()):
        for line in sorted({line for lines in problems for line in lines}):
            print(f"\n{number}: {line}")
    print(f"\n{time.monotonic() - start:.0f} s")
    return any(problems for of_promise in outcomes.values() for problems in of_promise)


def outcomes_of(inject, place):
    """What a function of the campaign yields, as a list; says that it is through."""
    start, function = time.monotonic(), getattr(inject, "func", inject)
    outcomes = list(inject(place))
    took = f"{len(outcomes)} faults, {time.monotonic() - start:.0f} s"
    print(f"{function.__name__}: {took}", file=sys.stderr, flush=True)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
