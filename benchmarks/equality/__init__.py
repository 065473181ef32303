"""Does a change move numbers? Two states of klimb do the same things on one machine, and what they write is compared."""
