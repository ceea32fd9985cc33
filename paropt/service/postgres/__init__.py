"""The PostgreSQL that comes with paropt: its binaries, its data directory, its coming and going."""
