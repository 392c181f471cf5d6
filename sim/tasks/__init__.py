"""What a policy senses, what it is asked to do and what it costs, for each kind of robot."""
