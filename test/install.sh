#!/bin/bash
# Installs what the tests with root need (Debian and Ubuntu), and makes the root
# of the lab's second kind of machine. Quiet and quick when all is there; may be
# run again. It starts no daemon, and has none started at the next boot.
set -euo pipefail

packages=(
	docker.io docker-compose docker-registry firewalld dbus
	iptables ipset nftables conntrack iproute2 procps kmod
	busybox-static curl git make gcc libc6-dev ca-certificates
	ufw python3 xz-utils
	debootstrap debian-archive-keyring systemd
)

# What these packages, and containerd with them, have started at each boot. ufw has a switch of its own, which is off.
units=(containerd.service docker.service docker.socket docker-registry.service firewalld.service)

installed() {
	[[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null || true) == installed ]]
}

# Prints the packages that are not installed, one a line.
missing() {
	local p
	for p in "${packages[@]}"; do
		installed "$p" || echo "$p"
	done
}

# Prints the units that are started at a boot, one a line.
enabled() {
	local u
	for u in "${units[@]}"; do
		if systemctl --quiet is-enabled "$u" 2>/dev/null; then echo "$u"; fi
	done
}

# Runs a command up to four times, with a pause that grows: a mirror may be away or in the middle of a change, and at a boot apt's own timers
# have its locks.
persist() {
	local pause
	for pause in 10 30 60; do
		if "$@"; then return; fi
		echo "test/install.sh: trying again in $pause seconds: $*" >&2
		sleep "$pause"
	done
	"$@"
}

get_packages() {
	apt-get --quiet update && apt-get --quiet --yes -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
}

# Puts the machine's own policy back, see forbid_daemons.
restore() {
	rm -f "$policy" "$log"
	if [[ -e $aside || -L $aside ]]; then
		mv "$aside" "$policy"
	fi
}

# Package scripts ask the policy before they start a daemon; 101 forbids it. The
# machine's own one is put aside until the end.
forbid_daemons() {
	# Where an earlier run was killed, what lies aside is the machine's and what is in place was ours.
	if [[ ! -e $aside && ! -L $aside ]] && [[ -e $policy || -L $policy ]]; then
		mv "$policy" "$aside"
	fi
	trap restore EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
}

install_packages() {
	if ((EUID != 0)); then
		echo "test/install.sh: needs root to install $*; run it with sudo" >&2
		exit 1
	fi
	if installed docker-ce; then
		echo "test/install.sh: Docker CE is installed, which Debian's docker.io would take the place of: use another machine" >&2
		exit 1
	fi
	local before unit
	before=$(enabled)
	log=$(mktemp)
	forbid_daemons
	export DEBIAN_FRONTEND=noninteractive
	echo "test/install.sh: installing $*"
	if ! persist get_packages "$@" >"$log" 2>&1; then
		tail -n 30 "$log" >&2
		echo "test/install.sh: installing $* did not work, see above" >&2
		exit 1
	fi
	for unit in $(enabled); do
		if [[ $before != *"$unit"* ]]; then systemctl --quiet disable "$unit"; fi
	done
}

policy=/usr/sbin/policy-rc.d
aside=$policy.kept-by-drawbridge

if ! command -v dpkg-query >/dev/null; then
	echo "test/install.sh: this is not Debian or Ubuntu; install by hand: ${packages[*]}" >&2
	exit 1
fi
mapfile -t wanted < <(missing)
if ((${#wanted[@]} > 0)); then
	install_packages "${wanted[@]}"
fi
if ((EUID != 0)); then
	"$(dirname "$0")/lab/root.sh" # says what is to be done, if anything
else
	persist "$(dirname "$0")/lab/root.sh"
fi
