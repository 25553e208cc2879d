"""Raw data sets: which frames there are, and how one becomes an image with planar depth and normals."""
