package hostfirewall

import (
	"fmt"

	"pgregory.net/rapid"
)

// Outside is what draws choose from, so that they are about somebody: sources of both families, links, and ports.
type Outside struct {
	Sources []string // addresses and prefixes
	Links   []string
	Ports   []uint16
}

// DrawUFW draws commands for lab.StartUFW or lab.UFW. None is of the verb limit: it counts who comes, so that no two who ask are treated alike.
func DrawUFW(t *rapid.T, o Outside) []string {
	commands := []string{"default " + rapid.SampledFrom([]string{"deny", "deny", "reject", "allow"}).Draw(t, "default") + " incoming"}
	for range rapid.IntRange(2, 5).Draw(t, "rules") {
		commands = append(commands, drawUFWRule(t, o))
	}
	return commands
}

func drawUFWRule(t *rapid.T, o Outside) string {
	command := rapid.SampledFrom([]string{"", "prepend "}).Draw(t, "place") + rapid.SampledFrom([]string{"allow", "allow", "deny", "reject"}).Draw(t, "verb")
	if rapid.Bool().Draw(t, "by link") {
		command += " in on " + rapid.SampledFrom(o.Links).Draw(t, "link")
	}
	from := "any"
	if rapid.Bool().Draw(t, "by source") {
		from = rapid.SampledFrom(o.Sources).Draw(t, "source")
	}
	command += " from " + from + " to any"
	if rapid.IntRange(0, 4).Draw(t, "every port") == 0 {
		return command
	}
	port := rapid.SampledFrom(o.Ports).Draw(t, "port")
	ports := rapid.SampledFrom([]string{fmt.Sprint(port), fmt.Sprintf("%d:%d", port-1, port+1), fmt.Sprintf("22,%d", port)}).Draw(t, "ports")
	return command + " port " + ports + " proto " + rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "proto")
}

// DrawFirewalld draws calls of firewall-cmd, each of them its arguments. A reload forgets them, but for the default zone, which every draw sets.
func DrawFirewalld(t *rapid.T, o Outside) [][]string {
	names := []string{"public", "work", "block", "drop", "trusted"}
	calls := [][]string{{"--set-default-zone=" + rapid.SampledFrom([]string{"public", "public", "drop", "block"}).Draw(t, "default zone")}}
	for _, link := range o.Links {
		if rapid.Bool().Draw(t, "bound") {
			calls = append(calls, []string{"--zone=" + rapid.SampledFrom(names).Draw(t, "zone of "+link), "--change-interface=" + link})
		}
	}
	if rapid.Bool().Draw(t, "source zone") {
		calls = append(calls, []string{"--zone=" + rapid.SampledFrom(names).Draw(t, "zone of a source"), "--change-source=" + rapid.SampledFrom(o.Sources).Draw(t, "source")})
	}
	for range rapid.IntRange(2, 5).Draw(t, "changes") {
		// In the zone trusted everything is allowed anyway.
		calls = append(calls, []string{"--zone=" + rapid.SampledFrom(names[:4]).Draw(t, "zone"), drawZoneChange(t, o)})
	}
	return calls
}

func drawZoneChange(t *rapid.T, o Outside) string {
	proto := rapid.SampledFrom([]string{"tcp", "udp"}).Draw(t, "proto")
	port := rapid.SampledFrom(o.Ports).Draw(t, "port")
	switch rapid.SampledFrom([]string{"port", "port", "range", "service", "protocol", "rich", "rich"}).Draw(t, "change") {
	case "port":
		return fmt.Sprintf("--add-port=%d/%s", port, proto)
	case "range":
		return fmt.Sprintf("--add-port=%d-%d/%s", port-1, port+1, proto)
	case "service": // 8080/tcp, or one that is about none of the ports
		return "--add-service=" + rapid.SampledFrom([]string{"jenkins", "https"}).Draw(t, "service")
	case "protocol":
		return "--add-protocol=" + proto
	}
	return "--add-rich-rule=" + drawRichRule(t, o, port, proto)
}

func drawRichRule(t *rapid.T, o Outside, port uint16, proto string) string {
	family, source := "", ""
	if rapid.Bool().Draw(t, "by source") {
		address := rapid.SampledFrom(o.Sources).Draw(t, "rich source")
		not := rapid.SampledFrom([]string{"", "", "NOT "}).Draw(t, "not")
		family, source = " family="+familyOf(address), " source "+not+"address="+address
	}
	priority := ""
	if p := rapid.IntRange(-2, 2).Draw(t, "priority"); p != 0 {
		priority = fmt.Sprintf(" priority=%d", p)
	}
	return fmt.Sprintf("rule%s%s%s port port=%d protocol=%s %s", family, priority, source, port, proto,
		rapid.SampledFrom([]string{"accept", "accept", "drop", "reject"}).Draw(t, "verdict"))
}

func familyOf(source string) string {
	for _, r := range source {
		if r == ':' {
			return "ipv6"
		}
	}
	return "ipv4"
}
