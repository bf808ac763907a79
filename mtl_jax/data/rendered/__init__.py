"""Rendered scenes with labels. Importing this package registers the tfds builder `rendered_scenes`."""

from mtl_jax.data.rendered.builder import RenderedConfig, RenderedScenes, draw

__all__ = ["RenderedConfig", "RenderedScenes", "draw"]
