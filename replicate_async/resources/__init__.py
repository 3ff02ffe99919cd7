"""One module for each namespace of the API, one coroutine for each operation."""
