"""A PostgreSQL server of paropt's own, for who gives no URL; :mod:`.server` is the way in."""
