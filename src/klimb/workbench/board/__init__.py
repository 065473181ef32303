"""A page over a folder of runs, served to a browser on this machine: curves that update, settings, reports."""
