"""The lines of a batch: checked, translated to jobs, kept in flight, and answered."""
