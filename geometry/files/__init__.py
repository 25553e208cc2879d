"""Files from elsewhere and files of our own: what may be opened, how much of it, and how whole ones are written."""
