"""Simulators, tasks, trainers and evaluation."""
