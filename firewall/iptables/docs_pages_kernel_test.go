//go:build kernel

package iptables

// page is one page of docs/rules.
type page struct {
	name     string
	title    string
	archive  string // of testdata: the state, and what else is on the host
	gone     bool   // show what is left when the state is empty again
	text     string
	commands string
	matters  []matter
}

// matter is a rule or an element of a set that the page is about: a part of its line in iptables-save or ipset save,
// and a sentence about it. One that is not in the kernel fails the test.
type matter struct{ line, sentence string }

const networkOne = `docker network create -d drawbridge --ipam-driver drawbridge --ipv6 \
    --subnet 10.1.0.0/24 --subnet fd00:1::/64 -o com.docker.network.bridge.name=br-one`

var pages = []page{
	{
		name: "published-port", title: "A published port", archive: "dual-stack",
		text: `The plain case: one network with a way out, and one container with a published port. All other pages show what differs from this one.`,
		commands: networkOne + ` one
docker run -d --network one -p 8080:80 nginx`,
		matters: []matter{
			{"add DRAWBRIDGE-ports4 10.1.0.2,tcp:80", "The container's port, as the packet carries it behind the translation."},
			{"-j DNAT --to-destination 10.1.0.2:80", "In `nat`: what is sent to port 8080 of any address of the host goes to the container. Only what is addressed to the host itself comes here (`--dst-type LOCAL`), by 127.0.0.1 only the host's own packets."},
			{`loopback belongs to the host" -j DROP`, "In `mangle`: what listens on 127.0.0.1 of the host is not the containers'. [A filter at each container's link](../adr/0004-loopback.md) says the same where somebody has flushed the rules."},
			{`from 127.0.0.1" -j MASQUERADE`, "In `nat`: to the container, who came by 127.0.0.1 is the bridge."},
			{`published port" -g DRAWBRIDGE-PASS`, "In `mangle`: what was translated on its way to a published port is not refused. `--ctstate DNAT` alone would let in what somebody else's rule redirects to an unpublished port."},
			{`not published, or another network" -j DROP`, "In `mangle`: everything else that would enter a container network, and belongs to no connection, is refused."},
			{`published port" -j ACCEPT`, "In `filter`: the port is open even where the FORWARD policy is DROP. `DOCKER-USER` comes before."},
			{`outwards" -j ACCEPT`, "In `filter`: containers may leave the host."},
			{`outwards" -j MASQUERADE`, "In `nat`: what they send outside carries the host's address."},
			{`hairpin" -j MASQUERADE`, "In `nat`: a container that reaches one of its own network by the host's address gets the host's, or the answer would come straight over the bridge, from an address that it did not ask."},
		},
	},
	{
		name: "isolation", title: "Two networks", archive: "isolation",
		text: `Containers of two networks do not reach each other, nor those of Docker's own networks (here docker0). They do reach each other's published ports, by an address of the
host. No rule names a network: another thousand of them add elements to the sets. Docker's bridges are a rule each, see [decision 2](../adr/0002-docker-bridges.md).`,
		commands: networkOne + ` one
docker network create -d drawbridge --ipam-driver drawbridge --ipv6 \
    --subnet 10.2.0.0/24 --subnet fd00:2::/64 -o com.docker.network.bridge.name=br-two two
docker run -d --network one -p 8080:80 nginx
docker run -d --network two busybox sleep 1d`,
		matters: []matter{
			{"add DRAWBRIDGE-nets4 10.2.0.0/24,br-two", "A subnet and its bridge. Looked up as `dst,src` (destination address, incoming link) it says that a packet stays in its network; as `src,src`, that its source belongs where it comes from."},
			{`same network" -g DRAWBRIDGE-PASS`, "What stays in a network passes. It is seen here only where br_netfilter shows bridged packets to the firewall."},
			{`source is not of the network" -j DROP`, "A container cannot pretend to be in another network."},
			{`source is of another network" -j DROP`, "Nor in the midst of a connection, where the kernel takes for a part of it what has its addresses and ports. What a container on two networks answers may come by either."},
			{`source is of no network" -j DROP`, "Nor to be a server outside that answers a container of another network."},
			{`source is of a container network" -j DROP`, "Nor can anybody outside pretend to be a container."},
			{`published port" -g DRAWBRIDGE-PASS`, "Published ports are open to other networks too."},
			{`not published, or another network" -j DROP`, "This is the isolation between networks."},
			{`-o docker0 -m comment --comment "drawbridge`, "And this keeps our containers out of Docker's own networks, unless Docker publishes the port."},
		},
	},
	{
		name: "internal", title: "An internal network", archive: "internal",
		text: `Nothing leaves an internal network and nothing gets in. Its bridge is in a device group of its own, so that the same rules are enough for all of them. Ports of its containers are
not published.`,
		commands: networkOne + ` one
docker network create -d drawbridge --ipam-driver drawbridge --ipv6 --internal \
    --subnet 10.2.0.0/24 --subnet fd00:2::/64 -o com.docker.network.bridge.name=br-int internal
docker run -d --network internal -p 8080:80 nginx`,
		matters: []matter{
			{`internal network, out" -j DROP`, "Nothing leaves, not even to a published port. It stands in `filter` too, should `mangle` have been flushed a moment ago."},
			{`internal network, in" -j DROP`, "Nothing gets in."},
			{"add DRAWBRIDGE-subnets4 10.2.0.0/24", "It is among the subnets, whose addresses nobody outside may use. It is not in `DRAWBRIDGE-masq4`."},
		},
	},
	{
		name: "links", title: "Containers kept apart, and linked", archive: "apart-links",
		text: `With enable_icc=false the bridge itself keeps containers apart: its ports are isolated (` + "`bridge link`" + `). For a linked pair the bridge answers in place of the other
container (proxy ARP), so that the host routes what they send each other; the rules then let the exposed ports pass.`,
		commands: networkOne + ` \
    -o com.docker.network.bridge.enable_icc=false one
docker run -d --network name=one,driver-opt=drawbridge.name=db \
    --expose 5432 --expose 5432/udp -p 8080:80 postgres
docker run -d --network name=one,driver-opt=drawbridge.name=web,driver-opt=drawbridge.link=db nginx`,
		matters: []matter{
			{"add DRAWBRIDGE-apart4 10.1.0.0/24,br-one", "The network keeps its containers apart."},
			{"add DRAWBRIDGE-links4 10.1.0.2,tcp:5432,10.1.0.3", "10.1.0.3 (web) may reach port 5432 of 10.1.0.2 (db)."},
			{`link" -g DRAWBRIDGE-PASS`, "What web sends to those ports of db is not refused,"},
			{`link, back" -g DRAWBRIDGE-PASS`, "nor is what comes back from them. It must not be new: there is no link in the other direction."},
			{`published port, from the same network" -g DRAWBRIDGE-PASS`, "Published ports are open to everybody, by an address of the host."},
			{`containers are kept apart" -j DROP`, "The rest of what would stay in the network is refused, in `filter` as well, where the policy may be ACCEPT."},
			{`there is no shorter way" -j DROP`, "The host does not tell linked containers to talk to each other directly (ICMP redirect): they cannot."},
		},
	},
	{
		name: "routed", title: "A routed network", archive: "routed",
		text: `Nothing is translated: containers leave with their own addresses, and a published port is open at the container's own address. Routes to the containers are for the
administrator to make. Of ` + "`-p 8080:80`" + ` only the 80 counts.`,
		commands: networkOne + ` \
    -o com.docker.network.bridge.gateway_mode_ipv4=routed -o com.docker.network.bridge.gateway_mode_ipv6=routed one
docker run -d --network one -p 8080:80 nginx`,
		matters: []matter{
			{"add DRAWBRIDGE-open4 10.1.0.2,tcp:80", "The port is open at the container's address."},
			{"add DRAWBRIDGE-routed4 10.1.0.0/24", "The network is routed. It is not in `DRAWBRIDGE-masq4`."},
			{`published port of a routed network" -g DRAWBRIDGE-PASS`, "In `mangle` what goes to an open port is not refused,"},
			{`published port of a routed network" -j ACCEPT`, "and in `filter` it is accepted."},
			{`ICMP to a routed network" -g DRAWBRIDGE-PASS`, "Containers answer to ping, and learn of path MTUs."},
			{`not published, or another network" -j DROP`, "All other ports stay closed."},
		},
	},
	{
		name: "nat-unprotected", title: "An unprotected network", archive: "unprotected",
		text: `Besides what the [plain network](published-port.md) does, every port of every container is open to who can route to it, but not to other container networks.`,
		commands: networkOne + ` \
    -o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected -o com.docker.network.bridge.gateway_mode_ipv6=nat-unprotected one
docker run -d --network one -p 8080:80 nginx`,
		matters: []matter{
			{"add DRAWBRIDGE-unprotected4 10.1.0.0/24", "The network is open."},
			{`unprotected network" -g DRAWBRIDGE-UNPROTECTED`, "What comes from outside of our networks goes on there."},
			{`from a bridge of Docker" -j DROP`, "Docker's own networks are not outside. Where this chain ends, the packet has passed."},
			{`unprotected network" -j ACCEPT`, "In `filter` it is accepted."},
		},
	},
	{
		name: "source-address", title: "A source address of its own", archive: "snat",
		text: `What containers send outside carries a certain address of the host in place of that of the link by which it leaves. No set can hold an address to rewrite to: such a network is a
rule.`,
		commands: networkOne + ` \
    -o com.docker.network.host_ipv4=192.0.2.7 -o com.docker.network.host_ipv6=2001:db8::7 one`,
		matters: []matter{
			{`outwards" -j SNAT --to-source 192.0.2.7`, "It comes before the rule for all the others."},
			{"add DRAWBRIDGE-masq4 10.1.0.0/24", "The network is among those that are translated: what belongs to no connection must not leave untranslated."},
		},
	},
	{
		name: "no-masquerade", title: "No masquerade", archive: "no-masquerade",
		text: `Containers leave with their own addresses, which others need a route to. Published ports work as ever. A host_ipv4 has no say then.`,
		commands: networkOne + ` \
    -o com.docker.network.bridge.enable_ip_masquerade=false -o com.docker.network.host_ipv4=192.0.2.7 one
docker run -d --network one -p 8080:80 nginx`,
		matters: []matter{
			{"create DRAWBRIDGE-masq4", "The set is empty, and the rule that looks into it stays for the other networks."},
			{`hairpin" -j MASQUERADE`, "Within a network the translation is needed all the same."},
			{"-j DNAT --to-destination 10.1.0.2:80", "The published port is translated."},
		},
	},
	{
		name: "trusted-interfaces", title: "Trusted interfaces", archive: "trusted",
		text: `From the links that are named, published ports may be reached at the containers' own addresses too.`,
		commands: networkOne + ` \
    -o com.docker.network.bridge.trusted_host_interfaces=eth1:tun0 one
docker run -d --network one -p 8080:80 nginx`,
		matters: []matter{
			{"add DRAWBRIDGE-trusted4 10.1.0.0/24,eth1", "A subnet and a link from which it may be reached."},
			{`published port, from a trusted link" -g DRAWBRIDGE-PASS`, "In `mangle`: not refused if it comes by that link, and to a port that is published. It was not translated."},
			{`published port, from a trusted link" -j ACCEPT`, "In `filter`: accepted."},
			{`not published, or another network" -j DROP`, "From all other links, and to all other ports, direct access is refused."},
		},
	},
	{
		name: "limited-port", title: "A port for some, by the host's own rules", archive: "limited",
		text: `Clients from outside are not translated, so that the host's INPUT rules decide about them, and only few sources may come, by one link. Containers and the host itself are translated as ever.`,
		commands: networkOne + ` \
    -o drawbridge.publish=host -o drawbridge.publish.from=192.0.2.0/24,2001:db8::/32 -o drawbridge.publish.iface=eth0 one
docker run -d --network one -p 8080:80 nginx`,
		matters: []matter{
			{"add DRAWBRIDGE-inside4 0.0.0.0/1,tcp:8080", "A port that is not translated for who comes from outside, on one half of all addresses; the other half is the next element. A set takes no prefix of length 0."},
			{"--match-set DRAWBRIDGE-inside4 dst,dst", "In `nat`: such a packet is left to the host. With `drawbridge.publish=learned` the nftables backend translates clients that the host has let in; no set of ipset holds what that takes."},
			{"add DRAWBRIDGE-sourced4 0.0.0.0/1,tcp:8080", "A port that is for some sources only,"},
			{"add DRAWBRIDGE-comers4 192.0.2.0/24,tcp:8080", "and one of these with it."},
			{"--match-set DRAWBRIDGE-sourced4 dst,dst", "In `mangle`: everybody else is refused before anything is translated, and before INPUT. Your rules in `DRAWBRIDGE-USER` come first."},
			{`by this link" -j RETURN`, "In `mangle`: no set holds a link beside a port, so that each such port has rules, in a tree as in `DRAWBRIDGE-DNAT`."},
			{"--dst-group 0xd12b0/0xfffffefe -m set --match-set DRAWBRIDGE-sourced-on4 dst,dst", "In `mangle` and in `filter`: the same at the container's own address, where routed networks and trusted links lead."},
		},
	},
	{
		name: "asked-port", title: "A port by the host's own rules, and yours", archive: "inquiry",
		text: `Clients from outside come to a socket, behind the host's INPUT rules, and FORWARD never sees them. So the socket asks ` + "`DOCKER-USER`" + ` about each, while there are rules in it: by a packet that has the bit 0x1000000 of the mark
([decision 14](../adr/0014-docker-user.md)).`,
		commands: networkOne + ` \
    -o drawbridge.publish=host one
docker run -d --network one -p 80:8080 nginx
iptables -A DOCKER-USER -i eth0 ! -s 192.0.2.7 -j DROP
ip6tables -A DOCKER-USER -i eth0 ! -s 2001:db8::7 -j DROP`,
		matters: []matter{
			{`an inquiry" -j DRAWBRIDGE-DNAT`, "In `nat`: such a packet, of TCP or UDP, is translated although the port is left to the host."},
			{`an inquiry" -g DRAWBRIDGE-INQUIRY`, "In `filter`, behind `DOCKER-USER`: it has passed."},
			{`-A POSTROUTING -p tcp -m mark --mark 0x1000000/0x1000000`, "In `mangle`: or `DOCKER-USER` has accepted it, which ends `filter`. UDP has the like."},
			{"-j NFLOG --nflog-group 1427", "The relay is shown what has passed, and then it ends: no container gets it."},
			{`to a transparent socket" -j MARK`, "In `mangle`: what the container answers to the client is led to the socket, which bears the client's address."},
		},
	},
	{
		name: "guard", title: "Forwarding turned on by us", archive: "guard-network",
		text: `If forwarding was off, Drawbridge turns it on, and the host would become a router between all its links. The guard, the last rule of FORWARD, keeps it from that; what anybody accepts is
accepted before. Why it outlives the last network is told in [decision 3](../adr/0003-guard.md).`,
		commands: `sysctl net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
` + networkOne + ` one`,
		matters: []matter{
			{`the host is no router" -j DRAWBRIDGE-GUARD`, "The last rule of FORWARD. Should somebody append another, it is moved behind that with the next pass."},
			{`from a container" -j RETURN`, "Containers are let through,"},
			{`from a bridge of Docker" -j RETURN`, "and Docker's own networks."},
			{`to a bridge of Docker" -j RETURN`, "Into those only what was asked for."},
			{`the host is no router" -j DROP`, "Everything else ends here."},
		},
	},
	{
		name: "nothing-left", title: "After the last network", archive: "dual-stack", gone: true,
		text: `All chains, jumps and sets go with the last network. What is shown is all that there is: the kernel's own chains. User chains (DOCKER-USER and DRAWBRIDGE-USER) stay if somebody
has put rules into them, and the [guard](guard.md) stays if there is one.`,
		commands: networkOne + ` one
docker network rm one`,
	},
}

// chainTexts say what each chain is for, in the order in which a page shows them. The kernel's own chains
// come with their jumps.
var chainTexts = []struct{ table, chain, text string }{
	{"mangle", "", "The ways in. `DRAWBRIDGE-USER` sees packets before the translation, with the port that clients know; the first rule of FORWARD refuses before anybody else's rule accepts."},
	{"mangle", "DRAWBRIDGE-USER", "Yours: made if it is missing, and never changed."},
	{"mangle", "DRAWBRIDGE-PREROUTING", "Keeps containers from the host's loopback addresses, which the kernel would take from our bridges, so that it can translate the host's own connections."},
	{"mangle", "DRAWBRIDGE-LIMIT", "Who from outside may come to which port of the host, whether the port is translated or not."},
	{"mangle", "DRAWBRIDGE-DIVERT", "Leads what containers answer to sockets of the host that bear a client's address to these."},
	{"mangle", "DRAWBRIDGE-INQUIRY", "Shows the relay which of its packets `DOCKER-USER` has accepted, and ends them."},
	{"filter", "DRAWBRIDGE-INQUIRY", "The same for those that it let pass."},
	{"mangle", "DRAWBRIDGE-FORWARD", "What is refused. `DRAWBRIDGE-PASS` and `RETURN` mean that it is not: whether it is accepted is for `filter` to say. What is new goes through it once more, last, where a rule in between has taken the mark off. The order of the rules is that of the list in the documentation of package `firewall`."},
	{"mangle", "DRAWBRIDGE-ESTABLISHED", "What of an established connection is refused: the kernel knows it by addresses and ports, and here the link is looked at, so that nobody sends into a connection that is not his."},
	{"mangle", "DRAWBRIDGE-ANSWERS", "What a container on two networks answers may come by a bridge of Docker's own driver, a rule for each, if its default route leads there."},
	{"mangle", "DRAWBRIDGE-DOCKER", "Keeps containers away from the bridges of Docker's own driver, a rule for each."},
	{"mangle", "DRAWBRIDGE-UNPROTECTED", "The way into networks that are open to the world, but not to Docker's own."},
	{"filter", "DRAWBRIDGE-OPEN", "The same for what is accepted."},
	{"filter", "DRAWBRIDGE-OUT", "What leaves for the world is accepted, and not what goes to a bridge of Docker."},
	{"mangle", "DRAWBRIDGE-PASS", "Tells the latch, the table `inet drawbridge-latch` of nftables, that a packet was seen here ([decision 11](../adr/0011-latch.md)). The latch takes the mark off."},
	{"mangle", "DRAWBRIDGE-MSS", "Keeps TCP connections from segments that would not pass on their way: path MTU discovery fails wherever somebody drops ICMP."},
	{"mangle", "DRAWBRIDGE-OUTPUT", "Keeps the host from telling linked containers of a shorter way to each other."},
	{"filter", "", "The ways in. `DOCKER-USER` comes first: a DROP there is final."},
	{"filter", "DOCKER-USER", "Yours, as with Docker: made if it is missing, and never changed."},
	{"filter", "DRAWBRIDGE-FORWARD", "What is permitted where others would refuse it. It says for itself what may pass, rather than rely on `mangle` having dropped the rest."},
	{"filter", "DRAWBRIDGE-GUARD", "Keeps a host that forwards only because of us from being a router between its other links."},
	{"nat", "", "The ways in. What is addressed to the host itself is looked up among the published ports; ::1 is left to the daemon's sockets."},
	{"nat", "DRAWBRIDGE-PREROUTING", "What arrives. Ports that are left to the host's own rules and sockets are not translated for who comes from outside."},
	{"nat", "DRAWBRIDGE-DNAT", "Published ports. More than 16 of a protocol become a tree of chains, so that a packet meets few rules however many there are."},
	{"nat", "DRAWBRIDGE-POSTROUTING", "Sources of what leaves the host, and of what comes back to the network that it came from."},
}

// setTexts say what is in each set, less the digit of the family.
var setTexts = []struct{ set, text string }{
	{"DRAWBRIDGE-nets", "subnet and bridge of each network"},
	{"DRAWBRIDGE-subnets", "subnets"},
	{"DRAWBRIDGE-masq", "subnets whose source is rewritten on the way out"},
	{"DRAWBRIDGE-ports", "container ports to which published ports lead"},
	{"DRAWBRIDGE-open", "container ports that are open at their own address (routed networks)"},
	{"DRAWBRIDGE-routed", "subnets of routed networks"},
	{"DRAWBRIDGE-unprotected", "subnets that are open to the world"},
	{"DRAWBRIDGE-trusted", "subnet, and the link from which its published ports are reached directly"},
	{"DRAWBRIDGE-apart", "subnet and bridge of networks that keep containers apart"},
	{"DRAWBRIDGE-links", "container port, and the container that may reach it although they are kept apart"},
	{"DRAWBRIDGE-inside-on", "ports of one address of the host that are not translated for who comes from outside"},
	{"DRAWBRIDGE-inside", "those of all addresses, each with both halves of these"},
	{"DRAWBRIDGE-sourced-on", "ports of one address, the host's or a container's, that only some sources may reach"},
	{"DRAWBRIDGE-comers-on", "these, and a source that may"},
	{"DRAWBRIDGE-sourced", "ports of all addresses of the host that only some sources may reach"},
	{"DRAWBRIDGE-comers", "a source that may, and the port"},
	{"DRAWBRIDGE-linked-on", "container ports that only by some links one may reach"},
	{"DRAWBRIDGE-ways", "the container's address, and a link by which one may"},
}

// matchTexts put the matches by device group into words.
var matchTexts = []struct{ match, text string }{
	{fromOurs, "comes from a container network"},
	{toOurs, "goes to a container network"},
	{fromOthers, "does not come from a container network"},
	{toOthers, "does not go to a container network"},
	{fromOrdinary, "comes from a network that is not internal"},
	{fromInternal, "comes from an internal network"},
	{toInternal, "goes to an internal network"},
	{fromMade, "comes from a bridge that Drawbridge made, not one that it was given"},
}
