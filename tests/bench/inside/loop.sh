#!/bin/sh
# What people write when there is no tool: a loop. Its input has a line for each person, NAME PORT PORT.
set -eu

groupadd --force --system rosterd
while read -r name first second; do
    id "$name" >/dev/null 2>&1 ||
        useradd --create-home --shell /bin/bash --key HOME_MODE=0700 "$name"
    gpasswd --add "$name" rosterd >/dev/null
    [ -e "/etc/t3-serve/a-$name.env" ] ||
        (umask 077 && echo "A_PORT=$first" >"/etc/t3-serve/a-$name.env")
    [ -e "/etc/t3-serve/b-$name.env" ] ||
        (umask 077 && echo "B_PORT=$second" >"/etc/t3-serve/b-$name.env")
    systemctl --quiet enable --now -- "bench-a@$name.service" "bench-b@$name.service"
done <"$1"
