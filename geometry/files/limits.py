"""How much a file from elsewhere may claim, before memory is taken: limits of images, arrays, tables."""

MIB = 1 << 20

# Pillow refuses larger images by itself; OpenCV takes eight times as many.
MAX_IMAGE_PIXELS = 178_956_970
MAX_IMAGE_BYTES = 1024 * MIB
# A progressive JPEG has some ten scans; each costs as much time as an image.
MAX_JPEG_SCANS = 500
# A frame of a video: 8K. Eleven minutes at 30 frames per second.
MAX_VIDEO_FRAME_PIXELS = 35_389_440
MAX_VIDEO_FRAMES = 20_000
MAX_VIDEO_BYTES = 65_536 * MIB
# One array of one frame: 33 megapixels of three float32 numbers.
MAX_ARRAY_BYTES = 384 * MIB
# Tables, file lists, intrinsics. Hypersim's largest table has 10 MB.
MAX_TEXT_BYTES = 64 * MIB
# Samples of a prepared data set: 8192x8192.
MAX_SAMPLE_PIXELS = 67_108_864

# One member of a shard as it is stored. No sensible entry is a tenth of that.
MAX_MEMBER_BYTES = 256 * MIB
# An extended header of a tar file holds one long name.
MAX_TAR_HEADER_BYTES = 65_536
# A long name, a long link, a header for one member and one for all may precede a member.
MAX_TAR_HEADERS_IN_A_ROW = 8
# A sample has four entries; twice as many companions of macOS may lie between them.
MAX_MEMBERS_PER_SAMPLE = 64
# Names of samples end up in messages and tables.
MAX_KEY_LETTERS = 255
# What a server or a command sends after the end of a shard. tar fills up to 10 kB, with large blocks to a MiB.
MAX_BYTES_AFTER_SHARD = 16 * MIB
# Description of one sample.
MAX_JSON_BYTES = MIB
# dataset.json lists 200,000 shards in that. Parsed, the worst text takes twenty times as much memory.
MAX_MANIFEST_BYTES = 32 * MIB
# A dataset.json that comes from elsewhere byte by byte.
MAX_MANIFEST_SECONDS = 300.0
# The order of an epoch is an array over its shards, and numbers its samples.
MAX_SAMPLES_PER_SHARD = 1 << 31
# Of a shard below the folder of dataset.json.
MAX_FILE_NAME_LETTERS = 1024
# NumPy writes headers of 128 bytes; only structured types, which are refused anyway, need more.
MAX_NPY_HEADER_BYTES = 4096
# The directory of a zip file: 90,000 files with long names have 13 MB. The worst one takes 20 times as much memory.
MAX_ZIP_DIRECTORY_BYTES = 16 * MIB
# metrics.csv of a run: two million rows.
MAX_CURVES_BYTES = 256 * MIB
