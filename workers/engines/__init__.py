"""Engines: one file each, all of one protocol (see ``protocol``)."""
