"""What goes to the Hub with a model: its card."""
