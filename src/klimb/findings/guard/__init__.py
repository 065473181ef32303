"""What the guard of a run finds: its limits, and the events in which one was broken."""
