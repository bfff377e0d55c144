"""What trainings of all kinds share: their directory, history, observers, progress."""
