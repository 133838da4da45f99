"""`make demo`: the whole job, shown in a throwaway machine."""
