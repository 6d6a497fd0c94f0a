"""The HTML page of a report: one file that opens offline, with its numbers, tables and figures.

A module for each part finds its numbers, and draws its figure where it has one; `write` puts them
together. It needs matplotlib and Jinja2, the extra `report`.
"""
