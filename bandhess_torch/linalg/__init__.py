"""Factorisations of bands, and what follows from them."""
