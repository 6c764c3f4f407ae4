"""The ``openai`` engine: starts any OpenAI-compatible server on its device, and feeds it."""
