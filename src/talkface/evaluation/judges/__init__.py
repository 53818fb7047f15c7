"""Judges: networks that say how well a video's lips fit its sound, and whether two faces are one person's."""

from pathlib import Path

from talkface.evaluation.judges.own import own_judge
from talkface.evaluation.judges.sync import SyncJudge
from talkface.evaluation.judges.syncnet import OriginalSyncNet


def sync_judges(syncnet: Path | None = None) -> list[SyncJudge]:
    """This project's judge, and SyncNet's original weights if the user has them.

    Args:
        syncnet: Their file.

    Raises:
        ModelUnavailable: The file does not hold them.
    """
    original: list[SyncJudge] = [OriginalSyncNet(syncnet)] if syncnet else []
    own = own_judge()
    return [*([own] if own else []), *original]
