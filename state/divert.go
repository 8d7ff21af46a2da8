package state

// A transparent socket of ours talks to a container with the address of its client. The container's answers are for that
// client, and come back to the socket because they get a bit of their mark at the bridge, by which a routing rule leads them to
// the host itself.
const (
	// MarkDivert is that bit. As with the bit of what is permitted (nftables.MarkPermitted), no other program in wide use
	// takes it alone.
	MarkDivert uint32 = 1 << 26
	// TableDivert is the routing table to which the rules lead, and their priority.
	TableDivert = 1427
	// ProtoDivert marks our rules and routes (ip rule, ip route: "proto 142"). It is no number of another program in iproute2's
	// rt_protos.
	ProtoDivert = 142
)

// ByHost reports whether clients from outside come by a socket of the host.
func (p Publish) ByHost() bool { return p == PublishHost || p == PublishLearned }

// ByHost returns the networks in which containers may be reached by a socket of the host, where resolve tells what an
// exposure comes to: the network itself says so, or one of its endpoints does.
func (s Snapshot) ByHost(resolve func(Exposure) Publish) []Network {
	own := map[NetworkID]bool{}
	for _, e := range s.Endpoints {
		if e.Exposure.Publish != PublishInherit && resolve(s.Exposure(e)).ByHost() {
			own[e.Network] = true
		}
	}
	var out []Network
	for _, n := range s.Networks {
		if !n.Internal && (own[n.ID] || resolve(n.Exposure).ByHost()) {
			out = append(out, n)
		}
	}
	return out
}
