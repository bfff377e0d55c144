"""Prototype-based image prompting: prototypes, training, segmentation, evaluation."""
