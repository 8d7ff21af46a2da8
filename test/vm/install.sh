#!/bin/bash
# Installs the emulator, and puts Debian 12's kernel with its modules below /var/cache/drawbridge-vm, whose path it prints. Installs no kernel.
set -euo pipefail

cache=/var/cache/drawbridge-vm
if ! command -v qemu-system-x86_64 >/dev/null || ! command -v cpio >/dev/null; then
	apt-get --quiet update >&2
	DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes install --no-install-recommends qemu-system-x86 cpio >&2
fi
package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-6[^ ]*\)$/\1/p' | head -n 1)
if [[ -z $package ]]; then
	echo "test/vm/install.sh: apt knows no linux-image-amd64: this is not Debian, or apt-get update was never run" >&2
	exit 1
fi
if [[ ! -d $cache/$package ]]; then
	new=$(mktemp -d)
	trap 'rm -rf "$new"' EXIT
	chmod 755 "$new" # apt's own user writes there
	(cd "$new" && apt-get --quiet download "$package" >&2 && dpkg-deb -x "$package"_*.deb tree)
	depmod -b "$new/tree" "${package#linux-image-}"
	mkdir -p "$cache"
	mv -T "$new/tree" "$cache/$package"
fi
echo "$cache/$package"
