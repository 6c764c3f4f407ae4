"""Results of a run: outcome, report, estimates, and the clairvoyant bound."""
