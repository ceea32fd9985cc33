"""What this computer is and keeps: PAROPT_HOME, devices, file locks, slot files, signals.

Imports nothing of paropt but errors.
"""
