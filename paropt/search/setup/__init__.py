"""Before a study starts: a space held against its models, made for its data, or warmed.

The only room of search that loads torch, by asking models what they declare.
"""
