"""What an item's vector is made of: its id, and what is known of it beside its id."""
