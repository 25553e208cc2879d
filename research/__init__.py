"""What produced results and weights of this project, but is no part of it: the paper in miniature, the toy base."""
