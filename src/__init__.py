"""Threads that wait for others give up their core soon.

By default those of OpenMP spin for milliseconds at every barrier, and beside another program all
others wait for the one that has no core: stages take many times as long. It must be set before
torch is imported; what the user has set stays.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
