"""The border: what bytes from elsewhere must pass before they are used, one module per format."""
