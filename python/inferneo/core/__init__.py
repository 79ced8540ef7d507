"""Engines and their configuration."""
