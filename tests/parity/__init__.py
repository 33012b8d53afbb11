"""Numbers from the official code against the public converter and classes: `python -m tests.parity DIR [DIR ...]`."""
