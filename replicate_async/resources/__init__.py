"""Namespaces of the API: one module each, with one method for each operation."""
