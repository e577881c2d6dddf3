"""The fault campaign: what an interrupted, broken or hostile world does to the stages.

    FAULTS=many python -m pytest -m promise

A test that is marked with the number of a promise injects one fault, and a table at the end counts
them. Those here work on the stages as users start them; the marked ones of other folders on parts.
Without FAULTS=many it is the short form, as in the whole suite: few faults, on small pictures.
"""
