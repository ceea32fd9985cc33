"""What a terminal shows of a study, and the words that steer it."""
