"""What a number is: ranks, metrics, protocols, baselines, intervals, better and worse."""
