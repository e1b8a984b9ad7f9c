"""Deblenders as measure functions: ours, and those of others where they are installed."""
