"""Trained runs in use: restoring, evaluating, predicting and exporting their models."""
