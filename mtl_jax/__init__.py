"""Multi-task dense prediction in JAX/Flax.

An independent implementation of the models, losses and metrics of the survey arXiv 2004.13379 and of MTI-Net
(arXiv 2001.06902). Importing the package starts no device and opens no file.
"""

__version__ = "0.1.0"
