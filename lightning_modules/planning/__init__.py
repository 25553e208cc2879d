"""What a configuration needs before it runs: memory, operations and time, and what makes it fit a card."""
