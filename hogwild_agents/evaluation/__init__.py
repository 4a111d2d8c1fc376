"""Does a team answer sooner? Data sets, strategies, runs that resume, statistics and reports."""
