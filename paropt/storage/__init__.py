"""PostgreSQL: the embedded server, connections, leases, and the rows that studies are made of.

Imports :mod:`paropt.machine`. Outside, :func:`paropt.storage.connect.open_storage` is the way in.
"""
