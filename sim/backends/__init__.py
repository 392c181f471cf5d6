"""Physics engines behind small interfaces: one module per engine."""
