"""Qwen-Image and Qwen-Image-Edit: a codec of videos for single frames, and an editor that reads the image as tokens."""
