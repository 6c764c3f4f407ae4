"""The ``openai`` engine, which runs an OpenAI-compatible server on its device and sends it the requests."""
