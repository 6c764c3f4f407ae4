"""Random and hostile text, through each way into a fleet."""
