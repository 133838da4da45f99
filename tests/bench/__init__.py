"""`make bench`: what a run costs, beside its floor and beside what people use today."""
