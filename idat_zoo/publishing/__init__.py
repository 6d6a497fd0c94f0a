"""Finished runs as a repository on the Hub: what goes there, once all about it was checked.

One run lies at the root of its repository. Several lie in folders, below an index (config.json)
that later runs are added to; the card is then of all of them.

What others put into a repository stays as it is, unless it is named: a file is ours where its
SHA-256 is the one that a published result, or the record in the card, has of it.
"""
