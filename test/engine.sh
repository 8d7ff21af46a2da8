#!/bin/bash
# Runs the tests of test/engine on each of ENGINES and each of BACKENDS, with the program that DRAWBRIDGE_BIN names. What engine and backend do
# together is tried in all pairs of them. The rest each engine and each backend has once, in PAIRS. With ENGINE_EVERY=2 these
# share the rest: each test is run on one of them, from a first one that is drawn, or ENGINE_FROM. Use make test-engine.
set -euo pipefail

read -ra engines <<<"$ENGINES"
read -ra backends <<<"$BACKENDS"
read -ra whole <<<"$PAIRS"
together='^Test(PublishedPorts|PublishedUDP|UserRules|UserChainsAreKept|Isolation|HostBinding|Masquerade|FirewalldLate|FlushHeals|Purge|NothingForeignChanges|BootOrder|NoIPTables)$'

every=${ENGINE_EVERY:-1}
from=${ENGINE_FROM:-$((RANDOM % every))}

# share prints the tests of the rest that the n-th whole pair has, as a regular expression.
share() {
	go test -tags engine -list '^Test' ./test/engine | grep '^Test' | grep -vE "$together" |
		awk -v every="$every" -v at="$((($1 + from) % every))" 'NR % every == at' | paste -sd '|' | sed 's/.*/^(&)$/'
}

failed=()
for engine in "${engines[@]}"; do
	for backend in "${backends[@]}"; do
		pair=$engine-$backend run=$together
		for n in "${!whole[@]}"; do
			if [[ ${whole[n]} == "$pair" ]]; then
				run="$together|$(share "$n")"
			fi
		done
		echo "test-engine: docker $engine, $backend (ENGINE_EVERY=$every ENGINE_FROM=$from)"
		DRAWBRIDGE_ENGINE=$engine DRAWBRIDGE_BACKEND=$backend \
			go test -count=1 -parallel 5 -timeout 40m -tags engine -run "$run" ./test/engine || failed+=("$pair")
	done
done
if ((${#failed[@]})); then
	echo "test-engine: failed: ${failed[*]}"
	exit 1
fi
