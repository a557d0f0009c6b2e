"""Sequential quadratic programming under constraints local in stages."""
