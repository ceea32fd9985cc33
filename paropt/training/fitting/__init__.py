"""One training: steps, stages, optimisers, checkpoints."""
