"""Recipes of `swarmsgd compare` that come with the package."""
