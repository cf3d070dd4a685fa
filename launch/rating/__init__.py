"""Blind ratings: a page on which people judge pictures without knowing what made them, and what their scores say."""
