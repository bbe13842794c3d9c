"""Layers that several variants share."""
