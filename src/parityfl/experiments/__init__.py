"""Composes runs on workers or over HTTP, suites of runs, and schedules, which are selection without training."""
