"""The click commands: the only place where dataflow and models meet."""
