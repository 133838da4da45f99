"""The steps in a person's home, taken by a process that runs as that person and nothing more.

`worker` reads what is to be done from its standard input and writes what became of it to its standard output; each kind
of step is a module of its own. rosterd-home@.service is what this runs in.
"""
