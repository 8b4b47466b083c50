"""Measurements. Each compares two things in one run, taking turns, as ratios hold better than numbers."""
