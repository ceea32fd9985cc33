"""What a study found: reports, figures, comparisons, paramfiles and the final test."""
