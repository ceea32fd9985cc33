"""A model on disk: its weights, what it knows of its data, and what a training goes on from."""
