"""Which rows of a log are events, and how many are left after each step."""
