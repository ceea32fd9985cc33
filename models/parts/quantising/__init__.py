"""Vectors as a few codes: what they are prepared by, residual k-means, and how good codes are."""
