"""The fault campaign: what an interrupted, broken or hostile world does to the stages.

    python -m tools.faults

Runs on the embedded demo in a temporary folder, a quarter of an hour on two cores, and prints how
many faults were injected for each promise and how many of them the stages survived.
"""
