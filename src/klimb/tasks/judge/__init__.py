"""A judge: another model that is asked over HTTP what an answer is worth."""
