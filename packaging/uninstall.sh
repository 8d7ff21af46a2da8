#!/bin/sh
# Undoes "make install": stops the units, has the program take off the host what it made in kernel and firewalld, and removes the files.
# Says what is left. With DESTDIR it only removes files there. Safe to run again.
set -eu

DESTDIR=${DESTDIR-} PREFIX=${PREFIX-/usr/local} UNITDIR=${UNITDIR-/etc/systemd/system} FORCE=${FORCE-}
program=$DESTDIR$PREFIX/sbin/drawbridge
daemon='drawbridge.socket drawbridge.service'
relay='drawbridge-relay.socket drawbridge-relay.service'

# Reports whether this is the running system, and systemd runs it.
managed() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

# Stops the units that are there.
stop() {
	for unit in "$@"; do
		if systemctl cat "$unit" >/dev/null 2>&1; then systemctl stop "$unit"; fi
	done
}

# Takes links, rules, sets and the sockets of published ports off the host. The state file stays.
purge() {
	if [ ! -x "$program" ]; then
		echo "uninstall: $program is not there, so that nothing can be taken off the host: install it again for that" >&2
		return 1
	fi
	if [ -n "$FORCE" ]; then
		"$program" purge --keep-state --force
	else
		"$program" purge --keep-state
	fi
}

# Says what stays, and why.
left() {
	echo 'Drawbridge is uninstalled. What is left, where there was any:'
	if [ -e /var/lib/drawbridge ]; then echo '  /var/lib/drawbridge: networks and addresses, for when it is installed again; remove the folder to forget them'; fi
	if [ -d "$UNITDIR/drawbridge.service.d" ]; then echo "  $UNITDIR/drawbridge.service.d: your own settings of the unit"; fi
	echo '  net.ipv4.ip_forward and net.ipv6.conf.all.forwarding, as they are: others may rely on them'
	echo '  your rules in DOCKER-USER and DRAWBRIDGE-USER'
	echo "  firewalld's zone docker and policy docker-forwarding, which Docker uses too"
	if command -v docker >/dev/null 2>&1; then
		docker network ls --filter driver=drawbridge --format '  network {{.Name}}, which Docker still knows: docker network rm needs the plugin, so remove networks before' 2>/dev/null || true
	fi
}

if managed; then
	if [ "$(id -u)" != 0 ]; then
		echo 'uninstall: needs root to stop the units and to take rules and links off the host; run it with sudo' >&2
		exit 1
	fi
	# The socket first: Docker's next call would start the daemon.
	stop $daemon
	if ! purge; then
		echo 'uninstall: nothing is removed, and the daemon is started again. With make uninstall FORCE=1 containers that are attached count for nothing' >&2
		systemctl start $daemon || true
		exit 1
	fi
	stop $relay
	systemctl disable --quiet $daemon $relay 2>/dev/null || true
elif [ -z "$DESTDIR" ]; then
	purge
fi
# The program last: this script, run again after it was interrupted, needs it.
for unit in $daemon $relay; do rm -f "$DESTDIR$UNITDIR/$unit"; done
if managed; then systemctl daemon-reload; fi
if [ -z "$DESTDIR" ]; then rm -rf /run/drawbridge; fi
rm -f "$program"
if [ -z "$DESTDIR" ]; then
	left
fi
