"""Tests of `replicate_async.v1`, the shapes of `replicate` 1.0.7."""
