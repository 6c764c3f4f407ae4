"""The OpenAI API as jobs: translation of requests and answers. No HTTP, base dependencies only.

Source: https://platform.openai.com/docs/api-reference.
"""
