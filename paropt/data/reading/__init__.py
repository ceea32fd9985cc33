"""Files as columns: layouts, text, JSON lines and Parquet, and where each row stands.

Nothing is interpreted here.
"""
