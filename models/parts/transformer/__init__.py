"""What the sequence models share: blocks, attention, positions, mixtures, losses."""
