"""Base metrics of a run, measured: perplexity of a text, general questions, and what is wrong with answers.

Nothing is imported here: the processes that score answers need `guarding.general` alone, and not the model's libraries.
"""
