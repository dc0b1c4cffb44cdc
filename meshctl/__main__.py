"""`python -m meshctl`, and the entry of the controller's zipapp."""

from meshctl.cli import main

if __name__ == "__main__":
    main()
