"""The compiled CPU kernels, for both frameworks."""
