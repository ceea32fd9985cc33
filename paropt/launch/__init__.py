"""From a command to a study on data with slots at work."""
