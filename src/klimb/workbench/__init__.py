"""The edge: configuration, command line, run folder, terminal view, plots, demo.

OpenMP's threads wait asleep instead of spinning, unless the environment says otherwise: beside any other process,
spinning makes a step on a CPU more than ten times slower. It must be said before torch loads OpenMP, so it stands here.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
