package report

// A Metric is what can be measured.
type Metric struct {
	ID    string
	Title string // what was done
	Unit  string
	Level string // what varies, "" if nothing does
	More  bool   // whether more is better
}

// The IDs of what is measured.
const (
	NetworkCreate  = "network create"
	NetworkRemove  = "network remove"
	RemoveAll      = "remove all"
	RemoveAllLinks = "remove all links"

	Connect         = "connect"
	Disconnect      = "disconnect"
	ConnectOne      = "connect one"
	DisconnectOne   = "disconnect one"
	ConnectRate     = "connect rate"
	DisconnectRate  = "disconnect rate"
	LinksGone       = "links gone"
	PortsRate       = "ports rate"
	PortsTrip       = "ports trip"
	PortsNew        = "ports new"
	PortsFlow       = "ports flow"
	PortsStream     = "ports stream"
	NetsRate        = "nets rate"
	NetsTrip        = "nets trip"
	NetsNew         = "nets new"
	NetsFlow        = "nets flow"
	NetsStream      = "nets stream"
	PathRate        = "path rate"
	PathStream      = "path stream"
	OneMore         = "one more"
	OneMoreFirewall = "one more firewall"
	OneMoreKernel   = "one more kernel"
	OneMoreExecs    = "one more execs"
	Restart         = "restart"
	Memory          = "memory"
	NetworkExecs    = "network execs"
	ConnectExecs    = "connect execs"
	DisconnectExecs = "disconnect execs"
	PortExecs       = "port execs"
	ModeRate        = "mode rate"
	ModeStream      = "mode stream"
	PortsMemory     = "ports memory"
	HeldMemory      = "held memory"
	StoppedMemory   = "stopped memory"
	StoppedBytes    = "stopped bytes"
)

// Metrics are all, in the order in which they are shown.
var Metrics = []Metric{
	{NetworkCreate, "Create a network", "ms", "networks present", false},
	{NetworkRemove, "Remove a network", "ms", "networks present", false},
	{RemoveAll, "Remove all networks, one after the other", "s", "networks", false},
	{RemoveAllLinks, "From the last answer until all their links are gone", "s", "networks", false},
	{Connect, "Connect a running container", "ms", "published ports of it", false},
	{Disconnect, "Disconnect it", "ms", "published ports of it", false},
	{ConnectOne, "Connect a container with one published port", "ms", "ports present", false},
	{DisconnectOne, "Disconnect it", "ms", "ports present", false},
	{ConnectRate, "Connect 16 containers with one published port", "1/s", "requests in flight", true},
	{DisconnectRate, "Disconnect them", "1/s", "requests in flight", true},
	{LinksGone, "From the last answer until all their links are gone", "ms", "requests in flight", false},
	{PortsRate, "New connections to the last published port, from outside", "1/s", "published ports", true},
	{PortsTrip, "Round trip of a flow's first packet to it", "µs", "published ports", false},
	{PortsNew, "Way of a flow's first packet to it", "ns", "published ports", false},
	{PortsFlow, "Way of a packet of an established flow to it", "ns", "published ports", false},
	{PortsStream, "One connection's throughput to it", "Gbit/s", "published ports", true},
	{NetsRate, "New connections of a container to the outside", "1/s", "networks", true},
	{NetsTrip, "Round trip of its flow's first packet", "µs", "networks", false},
	{NetsNew, "Way of its flow's first packet", "ns", "networks", false},
	{NetsFlow, "Way of a packet of its established flow", "ns", "networks", false},
	{NetsStream, "Throughput of one of its connections", "Gbit/s", "networks", true},
	{PathRate, "New connections to a published port", "1/s", "from", true},
	{PathStream, "One connection's throughput to it", "Gbit/s", "from", true},
	{OneMore, "Connect a container with one port more", "ms", "published ports", false},
	{OneMoreFirewall, "Of that, firewall (what the daemon took, all in all)", "ms", "published ports", false},
	{OneMoreKernel, "Of that, kernel programming (the transaction of nftables, from its sending to the answer)", "ms", "published ports", false},
	{OneMoreExecs, "Programs started for it", "", "published ports", false},
	{Restart, "From the daemon's start until all ports are as they should be", "ms", "published ports", false},
	{Memory, "Memory per published port (PSS of the daemon, or of the docker-proxies)", "KiB", "published ports", false},
	{NetworkExecs, "Programs started for a network", "", "call", false},
	{ConnectExecs, "Programs started to connect a container", "", "published ports of it", false},
	{DisconnectExecs, "Programs started to disconnect it", "", "published ports of it", false},
	{PortExecs, "Programs started per published port", "", "call", false},
	{ModeRate, "New connections to a published port", "1/s", "from", true},
	{ModeStream, "One connection's throughput to it", "Gbit/s", "from", true},
	{PortsMemory, "Memory of the relay, which holds the ports (resident)", "MiB", "published ports", false},
	{HeldMemory, "What the proxy's memory grows by for a connection in flight (resident)", "KiB", "connections in flight", false},
	{StoppedMemory, "What it grows by for a connection whose reader has stopped (resident)", "KiB", "such connections", false},
	{StoppedBytes, "What the client of such a connection could send until it was held up", "MiB", "such connections", false},
}

// metric finds one by its ID.
func metric(id string) Metric {
	for _, m := range Metrics {
		if m.ID == id {
			return m
		}
	}
	return Metric{ID: id, Title: id}
}
