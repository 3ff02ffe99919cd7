"""Hostile inputs, a few in each run of the tests, and a million in a session of their own."""
