"""Conversion between the content of files and arrays: images and MATLAB variables."""
