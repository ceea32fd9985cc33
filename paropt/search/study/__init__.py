"""A study and its trials: definition, sampling, pruning, history, and what they amount to."""
