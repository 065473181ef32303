"""The guard of a run: base metrics, their limits, and what is done when one is broken."""
