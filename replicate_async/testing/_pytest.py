"""The pytest plugin, by the name under which it is installed.

Its fixtures use the emulator and the client, which share nothing, so they stand above both.
"""

pytest_plugins = ("replicate_async._pytest",)
