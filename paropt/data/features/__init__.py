"""What is known beside events: columns, tables of items and users, vectors, texts."""
