"""Pictures for people: panels of predictions and contact sheets of data sets."""
