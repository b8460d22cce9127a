"""One point and the set around it: notions, neighbourhoods, attacks. Knows no training, data set or table."""
