# Runs the daemon in turn on a kernel that lacks a module, as Docker would use it, and writes what it says.
set -u
network=$(printf 'a%.0s' {1..64}) endpoint=$(printf 'b%.0s' {1..64})

call() { curl --silent --max-time 60 --unix-socket /run/docker/plugins/drawbridge.sock "http://x/NetworkDriver.$1" -d "$2"; }

# Takes modules out until none goes any more.
unload() {
	local before after
	before=$(lsmod)
	while true; do
		lsmod | awk 'NR > 1 && $3 == 0 && /^(nft?_|xt_|x_tables|ip_set|ip6?t|nfnetlink|nf_tables)/ {print $1}' | xargs -r -n 1 rmmod 2>/dev/null
		after=$(lsmod)
		[[ $before != "$after" ]] || return 0
		before=$after
	done
}

# try NAME BACKEND MODE MODULE
try() {
	local out=/vm/$1
	mkdir -p "$out" /run/docker/plugins
	rm -rf /var/lib/drawbridge
	echo "install $4 /bin/false" >/etc/modprobe.d/withheld.conf
	/vm/drawbridge serve --firewall-backend="$2" --publish="$3" --engine-socket=off >"$out/log" 2>&1 &
	daemon=$!
	for _ in {1..200}; do [[ -S /run/docker/plugins/drawbridge.sock ]] && break; sleep 0.1; done
	call CreateNetwork '{"NetworkID":"'"$network"'","Options":{"com.docker.network.generic":{}},"IPv4Data":[{"Gateway":"10.9.0.1/24","Pool":"10.9.0.0/24"}],"IPv6Data":[{"Gateway":"fd00:9::1/64","Pool":"fd00:9::/64"}]}' >"$out/create"
	if [[ $(<"$out/create") == "{}"* ]]; then
		call CreateEndpoint '{"NetworkID":"'"$network"'","EndpointID":"'"$endpoint"'","Interface":{"Address":"10.9.0.2/24","AddressIPv6":"fd00:9::2/64"},"Options":{}}' >"$out/endpoint"
		call Join '{"NetworkID":"'"$network"'","EndpointID":"'"$endpoint"'","SandboxKey":"/var/run/docker/netns/x","Options":{}}' >"$out/join"
		call ProgramExternalConnectivity '{"NetworkID":"'"$network"'","EndpointID":"'"$endpoint"'","Options":{"com.docker.network.portmap":[{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":8080,"HostPortEnd":8080}]}}' >"$out/publish"
		iptables -I DOCKER-USER -s 192.0.2.1 -j DROP 2>/dev/null
		for _ in {1..50}; do /vm/drawbridge status >"$out/status" 2>&1; grep -q '^note.*\(DOCKER-USER\|the bridge.s address\)' "$out/status" && break; sleep 0.1; done
	fi
	/vm/drawbridge status >"$out/status" 2>&1
	/vm/drawbridge ports >"$out/ports" 2>&1
	iptables -F DOCKER-USER 2>/dev/null
	kill "$daemon"
	wait "$daemon"
	/vm/drawbridge purge --force >/dev/null 2>&1
	nft flush ruleset 2>/dev/null
	rm /etc/modprobe.d/withheld.conf
	unload
}

unload
while read -r name backend mode module; do try "$name" "$backend" "$mode" "$module"; done </vm/cases
