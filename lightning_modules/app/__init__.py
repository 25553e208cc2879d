"""The web page for one model: ``python -m lightning_modules.app``."""
