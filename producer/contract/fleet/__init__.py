"""The fleet file: its tables, their checks, and the settings that every process reads from it."""
