"""What a model of long and short parts of histories is made of: events, towers, bags, retrieval."""
