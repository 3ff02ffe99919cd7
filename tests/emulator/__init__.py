"""Tests of the emulator: what the reference says, over real sockets."""
