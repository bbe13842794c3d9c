"""Runs side by side: read from their folders or from MLflow, as a page or as Markdown."""
