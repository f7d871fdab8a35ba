"""Real workers on the wall clock: one server around the simulator's scheduler, and ways to reach it."""
