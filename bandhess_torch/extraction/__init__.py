"""From a function to its band: products of the Hessian with probes, or its diagonals carried along."""
