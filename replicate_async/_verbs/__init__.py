"""_verbs."""
