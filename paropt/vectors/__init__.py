"""Vectors of users and items, written where other programs read them: Redis, or files."""
