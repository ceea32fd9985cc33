"""The final test: what it trains, what it chooses, whose look at ``test`` it is, what it found."""
