"""From the tables of a study to its statistics. Reads tables alone, never a network."""
