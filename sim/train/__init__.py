"""Trainers: policies out of simulators."""
