"""`make bench`: what a run costs, beside the floor and beside a loop of systemctl."""
