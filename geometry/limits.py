"""How much a file from elsewhere may claim, before memory is taken: limits of pictures, arrays, tables."""

MIB = 1 << 20

# Pillow refuses larger pictures by itself; OpenCV takes eight times as many.
MAX_PICTURE_PIXELS = 178_956_970
MAX_PICTURE_BYTES = 1024 * MIB
# A progressive JPEG has some ten scans; each costs as much time as a picture.
MAX_JPEG_SCANS = 500
# One array of one frame: 33 megapixels of three float32 numbers.
MAX_ARRAY_BYTES = 384 * MIB
# Tables, file lists, intrinsics. Hypersim's largest table has 10 MB.
MAX_TEXT_BYTES = 64 * MIB
# Samples of a prepared data set: 8192x8192.
MAX_SAMPLE_PIXELS = 67_108_864
