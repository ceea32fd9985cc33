"""What files say: parameter spaces and paramfiles."""
