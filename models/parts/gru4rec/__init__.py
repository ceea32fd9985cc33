"""What only GRU4Rec is made of: its steps, cells, losses and updates."""
