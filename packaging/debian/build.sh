#!/bin/bash
# Builds the Debian packages of the architectures given, amd64 and arm64 if none is. Two builds of a commit are the same to
# the byte, wherever and whenever they are made with the same Go.
#
# lintian looks at them where it is installed.
#
#   OUT                where to: dist
#   VERSION            0.1.0, or 0.1.0-dev.7: the tag of the commit, or else that of internal/version and the commit's number and name
#   SOURCE_DATE_EPOCH  the date that all files bear: the commit's
set -euo pipefail
cd "$(dirname "$0")/../.."
here=packaging/debian
umask 022
export LC_ALL=C TZ=UTC

version() {
	local tag base
	if tag=$(git describe --exact-match --match 'v[0-9]*' 2>/dev/null) && clean; then
		echo "${tag#v}"
		return
	fi
	base=$(sed -n 's/^var Number = "\(.*\)"$/\1/p' internal/version/version.go)
	echo "$base.$(git rev-list --count HEAD).g$(git rev-parse --short=12 HEAD)$(clean || echo .changed)"
}

clean() { [[ -z $(git status --porcelain --untracked-files=no) ]]; }

# Replaces what the scripts say of units by those that there are: a unit that is added to packaging is in the package.
with_units() {
	local all enabled relay front
	all=$(cd packaging && echo *.service *.socket)
	relay=$(tr ' ' '\n' <<<"$all" | grep -e -relay | sort -r | paste -sd' ') # the socket first, or it would start the service
	front=$(tr ' ' '\n' <<<"$all" | grep -v -e -relay | sort -r | paste -sd' ')
	enabled=$(cd packaging && grep -l '^\[Install\]' *.service *.socket | sort -r | paste -sd' ')
	sed -e "s/@UNITS@/$all/; s/@ENABLED@/$enabled/; s/@RELAY@/$relay/; s/@FRONT@/$front/" "$1"
}

# Prints the licences of what is linked into the program.
licences() {
	local name dir
	printf '\n--- Go\n\n'
	cat "$(go env GOROOT)/LICENSE"
	go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}|{{.Dir}}{{end}}{{end}}' ./cmd/drawbridge | sort -u |
		while IFS='|' read -r name dir; do
			printf '\n--- %s\n\n' "$name"
			licence "$dir" || { echo "$here/build.sh: $name has no licence in $dir" >&2; exit 1; }
		done
}

# Debian has the text of Apache's licence on each machine, and wants no more of it.
licence() {
	local files
	files=$(find "$1" -maxdepth 1 -iname 'LICEN[SC]E*' | sort)
	[[ -n $files ]] || return
	if grep -q 'Apache License' $files; then
		grep -hE '^ *Copyright [0-9(]' $files || true
		echo 'Apache License, Version 2.0: /usr/share/common-licenses/Apache-2.0'
		find "$1" -maxdepth 1 -name 'NOTICE*' -exec cat {} +
	else
		cat $files
	fi
}

documents() {
	mkdir "$STAGE/doc"
	{ cat $here/copyright; GOOS=linux GOARCH=amd64 licences; } >"$STAGE/doc/copyright"
	cp CHANGELOG.md "$STAGE/doc/changelog"
	cp docs/operations.md docs/reference.md "$STAGE/doc"
	cat >"$STAGE/doc/changelog.Debian" <<-END
		drawbridge ($DEB_VERSION-1) unstable; urgency=medium

		  * Built from the project's sources; changelog.gz says what is new.

		 -- $(sed -n 's/^maintainer: //p' $here/nfpm.yaml)  $(date -u -d "@$SOURCE_DATE_EPOCH" -R)
	END
	gzip -9n "$STAGE"/doc/{changelog,changelog.Debian,operations.md,reference.md}
}

units() {
	local unit
	mkdir "$STAGE/units"
	for unit in packaging/*.service packaging/*.socket; do
		sed 's|/usr/local/sbin|/usr/sbin|' "$unit" >"$STAGE/units/${unit##*/}"
	done
}

VERSION=${VERSION:-$(version)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export DEB_VERSION=${VERSION//-/\~} # what comes before the release sorts before it
OUT=${OUT:-dist}
mkdir -p "$OUT"
OUT=$(realpath "$OUT")
export ARCH
STAGE=$(mktemp -d "$OUT/stage-XXXXXX")
trap 'rm -rf "$STAGE"' EXIT
named=(-ldflags "-s -w -X github.com/drawbridge-net/drawbridge/internal/version.Number=$VERSION")

cp $here/* "$STAGE"
mkdir "$STAGE/man"
go test -count=1 "${named[@]}" -run '^TestManual$' ./cmd/drawbridge -args -manual "$STAGE/man" >"$STAGE/log" || { cat "$STAGE/log"; exit 1; }
gzip -9n "$STAGE"/man/*.8
documents
units
for script in postinst prerm postrm; do
	with_units $here/$script >"$STAGE/$script"
done
# Where it was never built it comes from the network, which may be away for a moment.
nfpm=$(go tool -modfile=tools/go.mod -n nfpm || { sleep 10; go tool -modfile=tools/go.mod -n nfpm; })
(($#)) || set -- amd64 arm64
for ARCH; do
	CGO_ENABLED=0 GOOS=linux GOARCH=$ARCH GOAMD64=v1 GOARM64=v8.0 \
		go build -trimpath -buildvcs=false "${named[@]}" -o "$STAGE/drawbridge" ./cmd/drawbridge
	(cd "$STAGE" && "$nfpm" package --packager deb --target "$OUT" >log) || { cat "$STAGE/log"; exit 1; }
	deb=$OUT/drawbridge_$DEB_VERSION-1_$ARCH.deb
	if command -v lintian >/dev/null; then
		lintian --allow-root --fail-on error,warning "$deb" >&2
	fi
	echo "$deb"
done
