"""Structured output: grammars that constrain the tokens of an answer."""
