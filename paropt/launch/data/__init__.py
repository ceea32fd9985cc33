"""What ``--data`` names, and where it lies on this machine: fetched and prepared once."""
