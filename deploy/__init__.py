"""Robots, the real-time loop and its safety; the virtual G1 that speaks the same wire."""
