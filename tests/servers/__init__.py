"""Web servers that are shut down while their handlers run models."""
