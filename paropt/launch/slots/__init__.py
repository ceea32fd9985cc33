"""Slots as who starts them sees them: processes here, jobs of Slurm, actors of Ray."""
