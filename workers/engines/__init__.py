"""The engines, each of which implements the protocol in ``protocol``."""
