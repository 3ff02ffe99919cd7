"""Requests to the API: the only folder that talks HTTP."""
