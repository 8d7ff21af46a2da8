#!/bin/bash
# Runs the tests of test/engine on each of ENGINES and each of BACKENDS, with the program that DRAWBRIDGE_BIN names. What engine and backend do
# together is tried in all pairs of them. The rest each engine and each backend has once, in PAIRS. With ENGINE_EVERY=2 these
# share the rest: each test is run on one of them, from a first one that is drawn, or ENGINE_FROM. So do the other pairs with what they have.
# With ENGINE_EVERY=4 half of these tests are run at all. Use make test-engine.
set -euo pipefail

read -ra engines <<<"$ENGINES"
read -ra backends <<<"$BACKENDS"
read -ra whole <<<"$PAIRS"
together='^Test(PublishedPorts|PublishedUDP|UserRules|UserChainsAreKept|Isolation|HostBinding|Masquerade|FirewalldLate|FlushHeals|Purge|NothingForeignChanges|BootOrder|NoIPTables)$'

every=${ENGINE_EVERY:-1}
from=${ENGINE_FROM:-$((RANDOM % every))}

tests=$(go test -tags engine -list '^Test' ./test/engine | grep '^Test')

# share prints the n-th share of the tests that it reads, as a regular expression.
share() {
	awk -v every="$every" -v at="$((($1 + from) % every))" 'NR % every == at' | paste -sd '|' | sed 's/.*/^(&)$/'
}

failed=()
others=0
for engine in "${engines[@]}"; do
	for backend in "${backends[@]}"; do
		pair=$engine-$backend run=
		for n in "${!whole[@]}"; do
			if [[ ${whole[n]} == "$pair" ]]; then
				run="$together|$(grep -vE "$together" <<<"$tests" | share "$n")"
			fi
		done
		if [[ -z $run ]]; then
			run=$(grep -E "$together" <<<"$tests" | share "$((others++))")
		fi
		echo "test-engine: docker $engine, $backend (ENGINE_EVERY=$every ENGINE_FROM=$from)"
		DRAWBRIDGE_ENGINE=$engine DRAWBRIDGE_BACKEND=$backend \
			go test -count=1 -parallel 5 -timeout 40m -tags engine -run "$run" ./test/engine || failed+=("$pair")
	done
done
if ((${#failed[@]})); then
	echo "test-engine: failed: ${failed[*]}"
	exit 1
fi
