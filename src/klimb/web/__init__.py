"""What answers HTTP: the pages of runs, served to a browser on this machine."""
