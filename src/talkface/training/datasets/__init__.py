"""What trainings read: examples of prepared data, cut and encoded once and kept."""
