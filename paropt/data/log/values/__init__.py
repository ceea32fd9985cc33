"""What stands in the cells of a log: ids and times."""
