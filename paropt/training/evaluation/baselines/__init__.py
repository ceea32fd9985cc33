"""What a number stands beside: popularity, co-occurrence, session k-NN."""
