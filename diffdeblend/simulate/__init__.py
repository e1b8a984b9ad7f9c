"""Blends with known truth: catalogues, surveys, sampling, drawing."""
