"""Who is in a video: people found by a fast look, then followed frame by frame in a stream.

:func:`scan` looks at a few frames and tells the people apart; :class:`Follower` goes through all frames,
holds a fraction of a second of them, and says where everybody is; :func:`speaking` tells whose lips move with
the sound.
"""

from talkface.face.people.follower import Follower, Sighting
from talkface.face.people.scanning import Person, VideoPeople, scan
from talkface.face.people.speaking import Speaking, speaking

__all__ = ["Follower", "Person", "Sighting", "Speaking", "VideoPeople", "scan", "speaking"]
