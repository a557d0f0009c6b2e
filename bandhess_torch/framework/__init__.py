"""What is peculiar to PyTorch: how its graphs are recorded and pulled back through (`autograd`), and its transforms."""
