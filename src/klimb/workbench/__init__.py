"""The edge: configuration, command line, run folder, terminal view, plots, demo.

OpenMP's threads spin for some microseconds while they wait and then sleep, unless the environment says otherwise. With
OpenMP's own 3 ms a step on a CPU is many times slower beside another process; without any spinning it is 1.4 to 1.9
times slower on a machine of its own (docs/performance.md). It must be said before torch loads OpenMP, so it stands
here.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # GNU's OpenMP, which torch brings on Linux: about 10 microseconds.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
