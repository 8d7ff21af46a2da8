package driver

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-net/drawbridge/firewall"
	"github.com/drawbridge-net/drawbridge/firewall/iptables"
	"github.com/drawbridge-net/drawbridge/firewall/nftables"
	"github.com/drawbridge-net/drawbridge/state"
)

// FuzzOptions gives any value to each option of networks and of endpoints, to keys that are none, and to the list of ports. What is
// taken is valid and harmless as the name of a link and in the rules of both backends, and what is refused is refused in one
// sentence.
func FuzzOptions(f *testing.F) {
	ports := []byte("[" + tcp(80, 8080) + "," + bound(132, 81, "::1", 8080, 8090) + "," + bound(17, 53, "192.0.2.1", 0, 0) + "]")
	networkKeys, endpointKeys := keysOf(networkOptions), keysOf(endpointOptions)
	for i, value := range []string{
		"br-lan", "1400", "false", "0", "192.0.2.1", "2001:db8::1", "::", "routed", "nat-unprotected", "true", "eth0:eth1:eth0", "net", "3", "100", "false",
		"host", "192.0.2.0/24,192.0.2.7 ::/0", "wg0:eth0:wg0",
	} {
		f.Add(i, "", value, "web", ports)
	}
	for i, value := range []string{"web", "db,cache web", "learned", "2001:db8::/32,0.0.0.0/0,198.51.100.7", "eth0:wg0", "web0", "net.ipv4.conf.IFNAME.route_localnet=1", "02:42:00:00:00:01"} {
		f.Add(i, "", "", value, []byte(`[{"Proto":6,"Port":80},{"Proto":99,"Port":0}]`))
	}
	for _, key := range []string{"", "com.example", dockerPrefix + "\n", ownPrefix + "nane", endpointPrefix + "ifname", dockerPrefix + "bridge.name ", enginePrivate + "x"} {
		f.Add(99, key, "a\nb", "fe80::1%\"x", []byte(`{"Proto":6}`))
	}
	f.Fuzz(func(t *testing.T, which int, key, forNetwork, forEndpoint string, list []byte) {
		keyOf := func(keys []string) string {
			if which >= 0 && which < len(keys) {
				return keys[which]
			}
			return key
		}
		p := parsed{t: t, d: &Driver{}, list: list}
		p.network(map[string]any{keyOf(networkKeys): forNetwork, dockerPrefix + "bridge.enable_icc": "false"})
		p.endpoint(map[string]any{keyOf(endpointKeys): forEndpoint})
		p.publish()
		p.names()
		p.rules()
	})
}

// parsed is what becomes of options; of those that are refused nothing.
type parsed struct {
	t    *testing.T
	d    *Driver
	list []byte // ports as the engine sends them
	n    state.Network
	e    state.Endpoint
}

// refused reports whether there is an error, which must be one sentence.
func (p *parsed) refused(err error) bool {
	if err != nil && (strings.ContainsAny(err.Error(), "\n\r\x00") || len(err.Error()) > 700) {
		p.t.Errorf("error is not one sentence: %q", err)
	}
	return err != nil
}

func (p *parsed) network(options map[string]any) {
	r := newNetwork(p.t, 1)
	r.Options[optGeneric] = options
	n, err := p.d.parseNetwork(r)
	if p.refused(err) {
		delete(r.Options, optGeneric)
		if n, err = p.d.parseNetwork(r); err != nil {
			p.t.Fatal(err)
		}
		n.NoICC = true
	}
	if err := n.Validate(); err != nil {
		p.t.Errorf("%v is taken: %v", options, err)
	}
	p.n = n
}

func (p *parsed) endpoint(options map[string]any) {
	r := newEndpoint(p.t, 1, 1)
	r.Options = options
	if _, ok := options[optExposed]; !ok {
		var exposed any
		if json.Unmarshal(p.list, &exposed) == nil {
			options[optExposed] = exposed
		}
	}
	e, err := parseEndpoint(r)
	if p.refused(err) {
		r.Options = nil
		if e, err = parseEndpoint(r); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := e.Validate(p.n); err != nil && !p.refused(err) {
		p.t.Errorf("%v is taken: %v", options, err)
	}
	p.e = e
}

// publish gives the endpoint what it asks for, as a host does on which all is free.
func (p *parsed) publish() {
	var ports any
	if json.Unmarshal(p.list, &ports) != nil {
		return
	}
	requests, err := p.d.portRequests(p.n, map[string]any{optPortMap: ports})
	if p.refused(err) {
		return
	}
	bind, open := arrange(p.n, p.e, families{v4: true, v6: true}, requests)
	for _, r := range bind {
		if err := r.Validate(); err != nil {
			p.t.Errorf("%s is taken: %v", p.list, err)
		}
		open = append(open, state.Port{Proto: r.Proto, HostIP: r.HostIP, HostPort: max(r.HostPort, 1), ContainerPort: r.ContainerPort})
	}
	slices.SortFunc(open, state.ComparePorts)
	p.e.Ports = slices.Compact(open)
}

// names looks at all names that the kernel gets, and at those by which containers are linked.
func (p *parsed) names() {
	links := append(slices.Concat(p.n.Trusted.All(), p.n.Exposure.Links.All(), p.e.Exposure.Links.All()), p.n.Bridge, p.e.HostLink(), p.e.ContainerLink(), p.e.PrefixIn(p.n)+"0", p.e.PrefixIn(p.n)+"999")
	for _, name := range links {
		if err := state.CheckLinkName(name); err != nil {
			p.t.Errorf("a link would be named %q: %v", name, err)
		}
	}
	for _, name := range append(p.e.Links, p.e.Name) {
		if err := state.CheckName(name); name != "" && err != nil {
			p.t.Errorf("a container is called %q: %v", name, err)
		}
	}
}

// rules compares the rules with those of a network with plain names: values make none of the words and lines.
func (p *parsed) rules() {
	other := p.e
	other.Exposure = state.Exposure{}
	other.ID, other.Links = state.EndpointID(id(2)), []string{p.e.Name, "web"}
	plain, plainEndpoint := p.n, p.e
	plain.Bridge = "br-plain"
	plain.Trusted, plain.Exposure.Links, plainEndpoint.Exposure.Links = renamed(p.n.Trusted), renamed(p.n.Exposure.Links), renamed(p.e.Exposure.Links)
	render := func(n state.Network, e state.Endpoint) map[string]string {
		policy := firewall.Render(state.Snapshot{Networks: []state.Network{n}, Endpoints: []state.Endpoint{e, other}}, firewall.Host{Loopback: true})
		return map[string]string{
			"iptables": iptables.Render(policy.V4).Text(), "ip6tables": iptables.Render(policy.V6).Text(), "nft": nftables.Render(policy, false).Text(),
		}
	}
	got, want := render(p.n, p.e), render(plain, plainEndpoint)
	for program, text := range got {
		if shape(text) != shape(want[program]) {
			p.t.Errorf("%+v makes words of its own in the rules of %s:\n%s", p.n, program, text)
		}
		if !strings.Contains(text, p.n.Bridge) {
			p.t.Errorf("no rule of %s names bridge %s", program, p.n.Bridge)
		}
	}
}

// renamed gives links plain names, the same one to the same link.
func renamed(l state.LinkNames) state.LinkNames {
	names := l.All()
	for i, name := range names {
		names[i] = fmt.Sprintf("eth%d", slices.Index(l.All(), name))
	}
	return state.LinkNames(strings.Join(names, ":"))
}

// shape is the number of lines, of words, and of characters that begin or end something.
func shape(text string) [3]int {
	marks := 0
	for _, r := range text {
		if strings.ContainsRune("\"'`\\;{}#$*?!,\x00", r) {
			marks++
		}
	}
	return [3]int{strings.Count(text, "\n"), len(strings.Fields(text)), marks}
}
