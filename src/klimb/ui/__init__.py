"""Faces: charts, figures, tables, terminal and pages. Nothing else writes HTML or terminal markup."""
