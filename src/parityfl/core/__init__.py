"""The mathematics of a run, with the standard library, numpy and its bfloat16 alone."""
