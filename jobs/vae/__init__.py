"""Unsupervised tile models: the β-VAE, its scores, and the classifier on top of it."""
