"""A trained run at work: restored from its work directory, predicting, exported."""
