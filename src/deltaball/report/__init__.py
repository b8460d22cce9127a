"""From tables, statistics and pictures to one page that opens anywhere."""
