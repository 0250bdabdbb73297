"""Retrieve candidate documents for a query from a collection."""
