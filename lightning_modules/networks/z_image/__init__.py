"""Z-Image: one stream of image and text, given as lists, with time that runs from noise to image."""
