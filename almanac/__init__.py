"""Almanac, the reference project: an economic calendar whose every commit reaches the replica."""
