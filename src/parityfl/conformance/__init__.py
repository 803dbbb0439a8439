"""Claims about selectors and aggregators, each checked on a small problem whose exact answer is known."""
