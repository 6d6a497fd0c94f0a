"""`python -m idat_zoo.cli`: the command `idat`, for launchers that start modules."""

from idat_zoo.cli import main

if __name__ == "__main__":
    main()
