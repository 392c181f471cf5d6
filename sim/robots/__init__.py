"""The robots as the simulators see them."""
