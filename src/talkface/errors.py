"""Errors a user can cause. The command line turns each into one line and exit code 2."""


class TalkfaceError(Exception):
    """Base of every error that says what is wrong with the input and what to do about it."""


class UnreadableMedia(TalkfaceError):
    """A file is missing, empty, truncated, a directory, or not the kind of media that was asked for."""


class AudioTooShort(TalkfaceError):
    """The speech holds no samples, or less than one video frame of them."""


class NoFaceFound(TalkfaceError):
    """No face was found in the picture or video."""


class UnusableFace(TalkfaceError):
    """A face was found but is too small (< 48 px) or turned away too far (> 70 degrees)."""


class OutputError(TalkfaceError):
    """The output exists already, cannot be written, or the disk is full."""


class ModelUnavailable(TalkfaceError):
    """A model file is neither bundled, cached nor fetchable, or its checksum does not match."""


class InvalidOption(TalkfaceError, ValueError):
    """An option or argument is outside its range."""
