"""A reward model: a scalar head on a language model's body, trained on ratings and preferences of its answers."""
