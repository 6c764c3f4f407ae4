"""The choice of the next token: parameters, changes to logits, sampling, and its log probabilities."""
