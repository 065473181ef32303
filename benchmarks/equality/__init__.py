"""Does a change move numbers? Two states of klimb do the same things on one machine; what they write is compared."""
