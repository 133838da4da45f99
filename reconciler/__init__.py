"""rosterd: makes a shared workstation agree with the file that says who works on it."""
