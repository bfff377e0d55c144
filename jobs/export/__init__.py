"""What is in a store, as files that other programs read."""
