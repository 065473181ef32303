"""A policy behind OpenAI's API: completions, what people say of them, and who may ask."""
