"""What can go wrong, as a tree; `cli` gives each class its exit code.

RosterdError
├── FileRefused      the roster or the site file is missing or not acceptable
├── UnknownName      the command line names somebody who cannot be meant
├── RemovalRefused   a person cannot be deleted or restored as things are; nothing was lost
├── LockBusy         another run holds the lock
├── TierConflict     the roster and the cluster disagree about a tier
├── ScanFailed       a source of facts could not be read; it is never taken for empty
└── StepFailed       one change to the host did not work; the others go on
    └── AccountFilesLocked   somebody holds the locks of passwd and its kin
"""


class RosterdError(Exception):
    """Base of every error that rosterd explains to its user; the text is the explanation."""


class FileRefused(RosterdError):
    """The roster or the site file cannot be used; the text lists every reason with its place."""


class UnknownName(RosterdError):
    """The command line names a person to whom the command cannot apply."""


class RemovalRefused(RosterdError):
    """A person cannot be deleted or restored as things are; the text gives every reason, and nothing was lost."""


class LockBusy(RosterdError):
    """Another run holds the lock and did not release it in the time given."""


class TierConflict(RosterdError):
    """The roster gives a person another tier than the cluster does."""


class ScanFailed(RosterdError):
    """A source of facts about the host could not be read; nothing was changed."""


class StepFailed(RosterdError):
    """One change to the host did not work; the text says which command or file and why."""


class AccountFilesLocked(StepFailed):
    """The locks of passwd, shadow or group are held; further attempts would only wait again."""
