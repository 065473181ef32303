"""Faults done to whole runs: kills, exceptions, full disks, damaged files; after each the run comes back, or says why.

`python -m tests.faults` is the campaign (`make faults`), `test_sample.py` a sample of it.
"""
