"""What a gateway adds to the direct client, and how many streams it carries."""
