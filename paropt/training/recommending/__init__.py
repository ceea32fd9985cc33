"""What comes of a saved model: next items, vectors, and files for other runtimes."""
