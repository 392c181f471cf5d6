"""What runs at every control tick: small enough, and with few enough dependencies, to install on a robot."""
