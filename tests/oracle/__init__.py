"""The truth by enumeration, in NumPy. Imports nothing of klimb."""
