"""Slide models: labels, splits, bags, training, scoring and the commands for them."""
