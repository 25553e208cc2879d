"""The one exception for mistakes that a user can mend."""


class InputError(ValueError):
    """Something given from outside (a file, an option, a data set) cannot be used.

    The message names the file, key or option and says what to do. The commands print it
    without a traceback and exit with status 2; every other exception is a bug and keeps its traceback.
    """
