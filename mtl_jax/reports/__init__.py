"""Many runs compared: tables, plots, and what a model costs."""
