"""The OpenAI API as jobs: what its requests ask for, and what its answers look like. No HTTP, base dependencies only.

Source: https://platform.openai.com/docs/api-reference.
"""
