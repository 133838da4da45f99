"""The words that rosters and site files may use: names, identities, groups, ports."""

from __future__ import annotations

import re

from reconciler.core.fields import Rule

MANAGED_GROUP = "rosterd"
"""Members of this system group are the accounts that rosterd manages."""

# 31 characters: useradd(8) allows 32, and a user's process still fits where 31 is the limit.
OS_USER = Rule(
    re.compile(r"[a-z_][a-z0-9_-]{0,30}"),
    "at most 31 characters a-z, 0-9, _ and -, the first a letter or _",
)
IDENTITY = Rule(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,254}"),
    "made of letters, digits and . _ @ + -, the first a letter or digit",
)
NAMESPACE = Rule(
    re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
    "a Kubernetes namespace: at most 63 of a-z, 0-9 and -, not first or last",
)
REPO = Rule(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"),
    "a repository's name of letters, digits and . _ -, the first a letter or digit",
)
GROUP = Rule(re.compile(r"[a-z_][a-z0-9_-]{0,31}"), "a group's name of a-z, 0-9, _ and -")
WORD = Rule(re.compile(r"[a-z][a-z0-9_-]{0,30}"), "a word of a-z, 0-9, _ and -, the first a letter")
VARIABLE = Rule(re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}"), "a variable's name, as in T3_PORT")
TEMPLATE = Rule(
    re.compile(r"[A-Za-z0-9_.:-]{1,100}@\.(service|timer|socket|path)"),
    "a template unit, as in t3-serve@.service",
)
UNIT = Rule(re.compile(r"[A-Za-z0-9_.:@\\-]{1,200}\.(service|timer|socket|path)"), "a unit's name")
PATH = Rule(
    re.compile(r"(?!.*/\.\.?(/|$))(?!.*//)/[^\x00-\x1f]{1,1000}(?<!/)"), "an absolute path without //, . and .. in it"
)
TEXT = Rule(re.compile(r"[^\x00-\x1f\x7f]{1,2000}"), "a text on one line")
# Root's own folders only: what lies below a home is the user's and never written by root.
ENV_FILE = Rule(
    re.compile(r"/etc(/[A-Za-z0-9_.-]*[A-Za-z0-9_-])+/[A-Za-z0-9_.-]*\{user\}[A-Za-z0-9_.-]*"),
    "a path below /etc with {user} in its last part, as in /etc/t3-serve/{user}.env",
)

# root and nobody, the names that Debian assigns to every system (base-passwd, Policy 9.2.2), and
# those that systemd brings. A host adds its own system accounts when it is scanned.
ALWAYS_RESERVED = frozenset([
    "root", "nobody", "nogroup", "daemon", "bin", "sys", "sync", "games", "man", "lp", "mail", "news",
    "uucp", "proxy", "www-data", "backup", "list", "irc", "gnats", "_apt", "adm", "tty", "disk", "kmem",
    "dialout", "fax", "voice", "cdrom", "floppy", "tape", "sudo", "audio", "dip", "operator", "src",
    "shadow", "utmp", "video", "sasl", "plugdev", "staff", "users", "systemd-network",
    "systemd-resolve", "systemd-timesync", "systemd-journal", "systemd-coredump", "messagebus", "sshd",
    MANAGED_GROUP,
])  # fmt: skip
