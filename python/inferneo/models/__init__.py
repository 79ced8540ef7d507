"""Models: managing many of them, and one of each format."""
