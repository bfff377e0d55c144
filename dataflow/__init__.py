"""Slides in, arrays out: the streaming half."""
