"""Reference motions of the humanoid: one file format, importers, repair, reports."""
