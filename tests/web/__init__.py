"""Web apps around the client."""
