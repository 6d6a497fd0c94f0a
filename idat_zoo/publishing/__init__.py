"""The publishing of finished runs in a repository on the Hub, once every file of them was checked.

A single run is at the root of its repository. Several runs are in folders, below an index
(config.json) to which later runs are added; one card describes all of them.

Files that others put into the repository are not changed, unless a person names them: a file is
ours if its SHA-256 is the one that a published result, or the record in the card, has of it.
"""
