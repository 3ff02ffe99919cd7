"""The clients that are compared: one module each, found by name.

This file imports nothing, for the time that an import takes is one of the things measured.
"""

PACKAGES = {
    "raw": "aiohttp",
    "v1": "replicate",
    "ours": "replicate_async",
    "raw-httpclient": "http.client",
    "raw-thread": "aiohttp",
    "v1-sync": "replicate",
    "ours-sync": "replicate_async.sync",
}
"""Adapter name -> the package whose import a user of it pays for."""
