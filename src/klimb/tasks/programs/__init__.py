"""Programs of the user's own that bring their loop: one is started for each sample, and ends with what it earned."""
