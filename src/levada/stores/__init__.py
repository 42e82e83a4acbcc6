"""Stores: where changes land."""
