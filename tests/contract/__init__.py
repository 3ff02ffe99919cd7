"""Behaviour through the public API, over real sockets."""
