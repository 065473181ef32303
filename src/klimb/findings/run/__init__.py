"""What a run's own numbers say: diseases with their evidence and the next thing to try, and what went well."""
