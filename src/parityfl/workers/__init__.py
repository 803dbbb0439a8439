"""Who trains and evaluates in experiments: a crew of processes or Ray actors, which is a fleet to the round loop."""
