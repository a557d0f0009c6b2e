"""What is peculiar to PyTorch: its transforms, and how its graphs are recorded."""
