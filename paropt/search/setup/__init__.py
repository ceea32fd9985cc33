"""Before a study starts: a space held against its models, made for its data, or warmed."""
