"""A model on disk, what it knows of its data, and what it recommends."""
