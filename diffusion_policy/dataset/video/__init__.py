"""Frames of recorded videos, read by their time."""
