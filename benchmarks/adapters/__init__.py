"""The clients that are compared: one module each, found by name.

This file imports nothing, for the time that an import takes is one of the things measured.
"""

PACKAGES = {"raw": "aiohttp", "v1": "replicate", "ours": "replicate_async"}
"""Adapter name -> the package whose import a user of it pays for."""
