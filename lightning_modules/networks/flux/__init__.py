"""FLUX.1, dev and Kontext: packed latents with rotary places, and a guidance scale that the transformer is told."""
