"""The images of the suite `real`: photographs by others, small enough to ship with the package."""
