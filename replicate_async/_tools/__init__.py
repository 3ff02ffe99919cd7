"""What the package is made with; not in the wheel."""
