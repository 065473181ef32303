"""The page about one run or several: what was learned, what it cost, what happened inside."""
