#!/bin/bash
# Makes the root file system of the managed plugin, of the program and of what the iptables programs need. These are
# Debian's packages, as apt would install them here; nothing of them is installed. Needs no root, and no image registry.
#
#   rootfs.sh PROGRAM DIRECTORY CACHE
#
# CACHE is a directory that keeps the packages for the next time.
set -euo pipefail

program=$1 root=$2 cache=$3
packages=(iptables libc6 libxtables12 libip4tc2 libip6tc2 libmnl0 libnftnl11 libnetfilter-conntrack3 libnfnetlink0)

fail() {
	echo "packaging/plugin/rootfs.sh: $*" >&2
	exit 1
}

# Prints the file name of a package of the version that apt would install.
file_of() {
	local version
	version=$(apt-cache policy "$1" | sed -n 's/^  Candidate: //p')
	if ((EUID == 0)) && [[ -z $version || $version == '(none)' ]]; then
		apt-get --quiet update >&2 || true
		version=$(apt-cache policy "$1" | sed -n 's/^  Candidate: //p')
	fi
	[[ -n $version && $version != '(none)' ]] || fail "apt knows no package $1; apt-get update may help"
	echo "${1}_${version//:/%3a}_$(dpkg --print-architecture).deb"
}

# Fetches a package of the name into the cache. apt's lists may be older than what the mirror has, or not be there: root has them made anew.
fetch() {
	local name=$1
	if ! download "$name"; then
		if ((EUID == 0)); then
			apt-get --quiet update >>"$work/log" 2>&1 || true
			file=$(file_of "$name")
		fi
		sleep 5
		if ! download "$name"; then
			cat "$work/log" >&2
			fail "fetching Debian's package $name did not work, see above; apt-get update may help"
		fi
	fi
	mv "$work/$file" "$cache/$file"
}

download() { (cd "$work" && apt-get --quiet download "$1" >>"$work/log" 2>&1); }

# Fetches the packages that are not in the cache, and unpacks all of them into one directory.
unpack() {
	local into=$1 name file
	mkdir -p "$cache"
	for name in "${packages[@]}"; do
		file=$(file_of "$name")
		[[ -e $cache/$file ]] || fetch "$name"
		dpkg-deb --extract "$cache/$file" "$into"
	done
}

# Copies what iptables runs with: two programs, which have all the others' names, their extensions, and the libraries of these.
copy_iptables() {
	local from=$1 kind name suffix path
	install -d "$root/usr/lib/$arch"
	ln -s usr/sbin "$root/sbin"
	ln -s usr/lib "$root/lib"
	for kind in nft legacy; do
		install -m 0755 "$(find "$from" -type f -path "*/sbin/xtables-$kind-multi")" "$root/usr/sbin/"
		for name in iptables ip6tables; do
			for suffix in '' -save -restore; do
				ln -s "xtables-$kind-multi" "$root/usr/sbin/$name-$kind$suffix"
				[[ $kind == legacy ]] || ln -s "xtables-$kind-multi" "$root/usr/sbin/$name$suffix"
			done
		done
	done
	cp -a "$(find "$from" -type d -name xtables)" "$root/usr/lib/$arch/"
	for name in 'ld-linux*' libc libm libxtables libip4tc libip6tc libmnl libnftnl libnetfilter_conntrack libnfnetlink; do
		find "$from" -path "*/lib/$arch/$name.so*" -exec cp -a -t "$root/usr/lib/$arch/" {} +
	done
	# The loader's path in the programs is a link, of the directory lib or lib64.
	path=$(cd "$from" && find . -type l -name 'ld-linux*' | head -n 1)
	path=${path#./}
	install -d "$root/$(dirname "${path#usr/}")"
	ln -sf "/usr/lib/$arch/${path##*/}" "$root/${path#usr/}"
	# The licences of what is copied ask for these.
	for name in "${packages[@]}"; do
		install -D -m 0644 "$from/usr/share/doc/$name/copyright" "$root/usr/share/doc/$name/copyright"
	done
}

# Each program runs, or the plugin would find out on a user's host.
try_iptables() {
	local name loader=("$root/usr/lib/$arch"/ld-linux*)
	for name in iptables-nft iptables-legacy; do
		env -i "${loader[0]}" --library-path "$root/usr/lib/$arch" "$root/usr/sbin/$name" --version >/dev/null ||
			fail "$name of the plugin does not run"
	done
}

for tool in apt-get dpkg-deb; do
	command -v "$tool" >/dev/null || fail "needs $tool: make the plugin on Debian or Ubuntu"
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/all"
unpack "$work/all"
arch=$(basename "$(dirname "$(find "$work/all" -name libc.so.6)")")

rm -rf "$root"
# The empty ones are where something is mounted, by config.json or by the engine.
install -d "$root"/{proc,sys,dev,etc,run,host/proc,var/lib/drawbridge,usr/sbin,usr/lib}
install -d -m 1777 "$root/tmp"
ln -s ../run "$root/var/run"
install -m 0755 "$program" "$root/usr/sbin/drawbridge"
copy_iptables "$work/all"
try_iptables
