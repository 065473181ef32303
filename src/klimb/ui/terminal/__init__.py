"""What a person reads in a terminal: one module for each thing that is shown."""
