"""`python -m hf_videovit.cli`."""

from . import main


if __name__ == "__main__":
    main()
