"""What is peculiar to the framework: how its programs are cached, read and compiled."""
