"""Tests of the sync facade."""
