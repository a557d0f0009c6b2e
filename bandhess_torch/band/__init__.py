"""Bands: stages, storage, and what is known of a band without factorising it."""
