"""What a verb gives: a video that is computed while it is looked at or saved."""
