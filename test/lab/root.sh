#!/bin/bash
# Makes the root directory of the lab's second kind of machine: Debian 13, with
# docker.io 26.1 and firewalld 2.3. It is made once, below /var/cache, and from
# then on only read. Needs root and debootstrap. Quiet and quick when it is there.
set -euo pipefail

suite=trixie
packages=(
	docker.io docker-cli firewalld dbus
	iptables ipset nftables conntrack iproute2 procps kmod
	busybox-static curl docker-compose ufw
)

# What this file says is what the root is made of: another text makes another
# root. The lab, which has the text too, finds it by the same sum (root.go).
self=$(realpath "$0")
sum=$(sha256sum "$self")
cache=/var/cache/drawbridge-lab
root=$cache/$suite-${sum:0:12}

# Prints the mirror in the machine's apt sources, as apt itself understands them.
mirror() {
	local uri release
	# shellcheck disable=SC1091
	. /etc/os-release
	if [[ $ID == debian ]]; then
		while read -r uri release; do
			if [[ $release == "$VERSION_CODENAME" && $uri =~ ^(https?|file): ]]; then
				echo "$uri"
				return
			fi
		done < <(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main')
	fi
	echo http://deb.debian.org/debian
}

# Has debootstrap, which does not read apt's settings, use apt's proxies.
export_proxies() {
	local http='' https=''
	eval "$(apt-config shell http Acquire::http::Proxy https Acquire::https::Proxy)"
	[[ -z $http ]] || export http_proxy=$http
	[[ -z ${https:-$http} ]] || export https_proxy=${https:-$http}
	# apt's word for none.
	[[ ${http_proxy-} != DIRECT ]] || unset http_proxy
	[[ ${https_proxy-} != DIRECT ]] || unset https_proxy
}

# Prints those of the machine's apt settings that say how things are fetched.
apt_settings() {
	apt-config dump | grep -E '^Acquire::(Check-[A-Za-z-]+|Retries|https?::(Timeout|Proxy(::[^ ]+)?)) ' || true
}

# Runs in namespaces of its own, so that no mount and no process outlives it.
build() {
	local new=$1 from
	from=$(mirror)
	export_proxies
	export DEBIAN_FRONTEND=noninteractive LC_ALL=C
	debootstrap --variant=minbase --include=ca-certificates "$suite" "$new" "$from"
	# debootstrap does not order packages by what they need; apt does the rest.
	apt_settings >"$new/etc/apt/apt.conf.d/90lab"
	printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' \
		'path-exclude=/usr/share/locale/*' >"$new/etc/dpkg/dpkg.cfg.d/lab"
	# Package scripts ask this file before they start a daemon; 101 forbids it.
	printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
	chmod 755 "$new/usr/sbin/policy-rc.d"
	mount -t proc proc "$new/proc"
	chroot "$new" apt-get --quiet update
	chroot "$new" apt-get --quiet --yes install --no-install-recommends "${packages[@]}"
	umount "$new/proc"
	rm -rf "$new"/{usr/sbin/policy-rc.d,etc/apt/apt.conf.d/90lab,var/cache/apt,var/lib/apt/lists}
}

fail() {
	echo "test/lab/root.sh: $*" >&2
	exit 1
}

if [[ ${1-} == build ]]; then
	build "$2"
	exit
fi
if [[ -d $root ]]; then
	exit 0
fi
if ((EUID != 0)); then
	fail "needs root to make the lab's Debian 13 root $root; run it with sudo"
fi
mkdir -p "$cache"
exec {lock}>"$cache/lock"
flock "$lock"
if [[ -d $root ]]; then
	exit 0 # another run has made it meanwhile
fi
echo "test/lab/root.sh: making the lab's Debian 13 root, once"
# Only the holder of the lock makes roots: what bears such a name was left by a run that was killed.
rm -rf --one-file-system "$cache"/new-*
new=$(mktemp -d "$cache/new-XXXXXX")
log=$new.log
trap 'rm -rf --one-file-system "$new" "$log"' EXIT
chmod 755 "$new"
if ! unshare --mount --propagation private --pid --fork --kill-child "$self" build "$new" >"$log" 2>&1; then
	tail -n 30 "$log" >&2
	fail "making the lab's Debian 13 root from $(mirror) did not work, see above"
fi
# On disk before it bears its name: a crash of the machine leaves a whole root or none.
sync --file-system "$new"
mv -T "$new" "$root"
