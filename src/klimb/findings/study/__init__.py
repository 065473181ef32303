"""What the runs of a study say together: scores, paired comparisons, verdicts."""
