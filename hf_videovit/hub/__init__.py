"""Model cards, publishing to the Hub, and reading from it."""
