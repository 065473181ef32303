"""The Llama family on packed rows: the one fast forward and backward pass."""
