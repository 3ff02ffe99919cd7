"""Predictions and trainings, from their create to their end."""
