"""Data in the layouts of the 2025 Tencent ads competition: one JSON line per user, or Parquet."""
