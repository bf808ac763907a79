"""From predictions to numbers: predictions and their files, scoring, edges, the constant baseline, result files."""
