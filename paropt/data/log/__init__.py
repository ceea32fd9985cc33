"""What a log says: its columns, which rows are events, their ids and times, how they split."""
