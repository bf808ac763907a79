"""Bytes of files to arrays and back: images and MATLAB variables."""
