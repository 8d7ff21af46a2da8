//go:build engine

package engine

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

var ours = []string{"network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge"}

// pools returns how many pools and networks the daemon knows.
func (b *bed) pools() (pools, networks int) {
	b.t.Helper()
	var status struct{ Networks, Pools int }
	if err := json.Unmarshal([]byte(b.run(binary(b.t), "status", "--json")), &status); err != nil {
		b.t.Fatal(err)
	}
	return status.Pools, status.Networks
}

// createByAPI creates a network as compose does, past the checks of the docker command.
func (b *bed) createByAPI(name, config string) string {
	b.t.Helper()
	client := &http.Client{Transport: unixsocket.Transport(b.Path("/run/docker.sock"))}
	defer client.CloseIdleConnections()
	body := `{"Name":"` + name + `","Driver":"drawbridge","EnableIPv6":true,"IPAM":{"Driver":"drawbridge","Config":[` + config + `]}}`
	res, err := client.Post("http://docker/networks/create", "application/json", strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	if res.StatusCode == http.StatusCreated {
		return ""
	}
	return string(text)
}

// TestIPAMRefused: what cannot be is refused in a sentence, and no pool stays behind.
func TestIPAMRefused(t *testing.T) {
	b := up(t, options{})
	b.network("there", "--subnet", "10.70.0.0/24")
	for _, c := range []struct{ name, config, words string }{
		{"host bits", `{"Subnet":"10.71.0.1/24"}`, "write 10.71.0.0/24"},
		{"host bits in the second family", `{"Subnet":"10.71.0.0/24"},{"Subnet":"fd71::1/64"}`, "write fd71::/64"},
		{"range outside", `{"Subnet":"10.71.0.0/24","IPRange":"10.72.0.0/25"}`, "10.72.0.0/25 is not inside subnet 10.71.0.0/24"},
		{"host bits in the range", `{"Subnet":"10.71.0.0/24","IPRange":"10.71.0.129/25"}`, "write 10.71.0.128/25"},
		{"gateway outside", `{"Subnet":"10.71.0.0/24","Gateway":"10.72.0.1"}`, "10.72.0.1 is outside subnet 10.71.0.0/24"},
		{"gateway that is none", `{"Subnet":"10.71.0.0/24","Gateway":"10.71.0.0"}`, "network address of subnet"},
		{"auxiliary address outside", `{"Subnet":"10.79.0.0/24","AuxiliaryAddresses":{"a":"10.72.0.9"}}`, "10.72.0.9"},
		{"auxiliary address that is the gateway", `{"Subnet":"10.71.0.0/24","Gateway":"10.71.0.5","AuxiliaryAddresses":{"a":"10.71.0.5"}}`, "is in use as the gateway"},
		{"auxiliary address twice", `{"Subnet":"10.71.0.0/24","AuxiliaryAddresses":{"a":"10.71.0.9","b":"10.71.0.9"}}`, "10.71.0.9 of subnet 10.71.0.0/24 is in use already"},
		{"two IPv4 subnets", `{"Subnet":"10.71.0.0/24"},{"Subnet":"10.72.0.0/24"}`, "one IPv4 subnet"},
		{"two IPv6 subnets", `{"Subnet":"fd71::/64"},{"Subnet":"fd72::/64"}`, "one IPv6 subnet"},
		{"the same subnet twice", `{"Subnet":"10.71.0.0/24"},{"Subnet":"10.71.0.0/24"}`, "overlaps"},
		{"second of two subnets in use", `{"Subnet":"10.71.0.0/24"},{"Subnet":"10.70.0.0/25"}`, "overlaps"},
	} {
		text := b.createByAPI("bad", c.config)
		// Newer engines (25 and later) check this themselves, and say so in their own words.
		byEngine := !strings.HasPrefix(b.engine(), "20.") && strings.Contains(text, "invalid network config")
		if !byEngine && !strings.Contains(text, c.words) {
			t.Errorf("%s: %q does not say %q", c.name, text, c.words)
		}
		pools, networks := b.pools()
		if c.name == "auxiliary address outside" && pools == 2 {
			// This engine (20.10) refuses by itself and forgets the pool. It gives way when asked for again.
			b.eventually("the forgotten pool gives way", func() bool { return b.createByAPI("again", `{"Subnet":"10.79.0.0/24"}`) == "" })
			b.do("network", "rm", "again")
			pools, networks = b.pools()
		}
		if pools != 1 || networks != 1 {
			t.Errorf("%s: %d pools and %d networks are left", c.name, pools, networks)
		}
	}
	if text := b.createByAPI("good", `{"Subnet":"10.71.0.0/24","IPRange":"10.71.0.128/25","AuxiliaryAddresses":{"a":"10.71.0.9","b":"10.71.0.129"}},{"Subnet":"fd71::/64"}`); text != "" {
		t.Error(text)
	}
	if a := b.addr(b.serveOn("good"), "good").String(); a != "10.71.0.130" {
		t.Errorf("the first container has %s", a)
	}
}

// TestIPAMLengths: unusual subnets carry packets.
func TestIPAMLengths(t *testing.T) {
	b := up(t, options{serve: []string{
		"--default-address-pool", "base=fd00:1::/48,size=64", "--default-address-pool", "base=10.80.0.0/30,size=31",
		"--default-address-pool", "base=10.80.4.0/22,size=22",
	}})
	b.network("two", "--ipv6", "--subnet", "10.81.0.0/31", "--subnet", "fd81::/127")
	c := b.serveOn("two", "-p", "8080:80")
	if got := b.addr(c, "two").String() + " " + b.addr6(c, "two").String(); got != "10.81.0.1 fd81::1" {
		t.Errorf("addresses %s", got)
	}
	lab.Reaches(t, b.Host, "tcp", at(b.addr(c, "two"), 80))
	lab.Reaches(t, b.Host, "tcp", at(b.addr6(c, "two"), 80))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr4(), 8080))
	lab.Reaches(t, b.client, "tcp", at(b.client.Host.Addr6(), 8080))
	lab.Pings(t, c, b.client.Addr4())
	lab.Pings(t, c, b.client.Addr6())
	image, err := b.docker.Image(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.fails("all 2 of 10.81.0.0/31 are in use", "run", "--rm", "--network", "two", image, "true")
	b.network("one", "--subnet", "10.81.0.7/32")
	b.fails("the gateway has the only one of 10.81.0.7/32; use a network with a larger --subnet", "run", "--rm", "--network", "one", image, "true")

	b.network("wide", "--ipv6", "--subnet", "11.0.0.0/8", "--subnet", "fd82::/48")
	b.network("odd", "--ipv6", "--subnet", "10.82.4.0/22", "--subnet", "fd83::/112")
	b.network("small", "--ipv6", "--subnet", "10.83.0.8/29", "--subnet", "fd84::/80")
	b.network("chosen", "--ipv6")
	b.network("chosen2", "--ipv6")
	b.network("chosen3")
	for name, want := range map[string]string{
		"wide": "11.0.0.2 fd82::2", "odd": "10.82.4.2 fd83::2", "small": "10.83.0.10 fd84::2",
		"chosen": "10.80.0.1 fd00:1::2", "chosen2": "10.80.0.3 fd00:1:0:1::2", "chosen3": "10.80.4.2 10.80.4.2",
	} {
		c := b.serveOn(name)
		if got := b.addr(c, name).String() + " " + b.addr6(c, name).String(); got != want {
			t.Errorf("%s: addresses %s, want %s", name, got, want)
		}
		lab.Pings(t, c, b.client.Addr4())
		lab.Reaches(t, b.Host, "tcp", at(b.addr6(c, name), 80))
	}
}

// TestIPAMDriversApart: Docker chooses the two drivers separately, and each combination works.
func TestIPAMDriversApart(t *testing.T) {
	b := up(t, options{})
	b.do("network", "create", "-d", "bridge", "--ipam-driver", "drawbridge", "--subnet", "10.90.0.0/24", "theirs")
	b.do("network", "create", "-d", "drawbridge", "--subnet", "10.91.0.0/24", "named")
	b.do("network", "create", "-d", "drawbridge", "unnamed")
	for _, name := range []string{"theirs", "named", "unnamed"} {
		one, two := b.serveOn(name), b.serveOn(name)
		lab.Reaches(t, one, "tcp", at(b.addr(two, name), 80))
		lab.Pings(t, two, b.client.Addr4())
	}
	// Their containers' addresses are known by nothing but the leases.
	b.serveOn("theirs", "--ip", "10.90.0.77")
	image, _ := b.docker.Image(t.Context())
	b.fails("in use", "run", "--rm", "--network", "theirs", "--ip", "10.90.0.77", image, "true")
	b.fails("in use", "run", "--rm", "--network", "theirs", "--ip", "10.90.0.2", image, "true")
	b.fails("overlaps", append(ours, "--subnet", "10.90.0.0/24", "more")...)
	b.do("network", "create", "-d", "bridge", "--ipam-driver", "drawbridge", "--subnet", "10.92.0.0/24", "empty")
	if err := b.plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	b.startPlugin()
	b.fails("overlaps", append(ours, "--subnet", "10.92.0.0/24", "more")...)
	b.serveOn("empty")
	b.serveOn("theirs")
}

// TestIPAMAtOnce: two creations of one subnet at once, and removal followed by creation at once.
func TestIPAMAtOnce(t *testing.T) {
	b := up(t, options{})
	for range 4 {
		errs := make([]error, 4)
		var wg sync.WaitGroup
		for i := range errs {
			name := string(rune('a' + i))
			wg.Go(func() {
				_, errs[i] = b.docker.Run(t.Context(), append(ours, "--ipv6", "--subnet", "10.95.0.0/24", "--subnet", "fd95::/64", name)...)
			})
		}
		wg.Wait()
		winner := ""
		for i, err := range errs {
			switch {
			case err == nil && winner == "":
				winner = string(rune('a' + i))
			case err == nil:
				t.Errorf("%s and %c have the subnet", winner, 'a'+i)
			case !strings.Contains(err.Error(), "overlaps"):
				t.Errorf("the loser is told: %v", err)
			}
		}
		if pools, networks := b.pools(); pools != 2 || networks != 1 || winner == "" {
			t.Fatalf("%d pools, %d networks, winner %q: %v", pools, networks, winner, errs)
		}
		b.do("rm", "-f", b.serveOn(winner).Name)
		b.do("network", "rm", winner)
		if pools, networks := b.pools(); pools != 0 || networks != 0 {
			t.Fatalf("%d pools, %d networks are left", pools, networks)
		}
	}
	for range 5 {
		b.network("again", "--ipv6", "--subnet", "10.95.0.0/24", "--subnet", "fd95::/64")
		b.do("network", "rm", "again")
	}
}
