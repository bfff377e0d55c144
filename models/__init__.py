"""Networks, and what is known about them. Importing this package loads nothing."""
