"""Thousands of blends at once: cut, grouped by shape and fitted together."""
