"""C that the machine's compiler makes at first use, and how Python calls it."""
