"""Studies: many runs under one budget, planned, run and collected."""
