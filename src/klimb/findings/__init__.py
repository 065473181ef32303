"""Opinions about numbers: thresholds, statistics, and what audits, runs and studies have to say. Pure."""
