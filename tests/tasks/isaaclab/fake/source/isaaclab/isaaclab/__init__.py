"""Stand-in for Isaac Lab: names and signatures as in its version 2.3, worlds of points that slide on a plane."""
