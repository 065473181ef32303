"""Learning while serving: ratings in, a candidate out, and a gate that says whether it may answer."""
