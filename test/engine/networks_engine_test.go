//go:build engine

package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge-net/drawbridge/internal/unixsocket"
	"github.com/drawbridge-net/drawbridge/test/lab"
)

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}

// TestNetworkOptions: name, MTU, addresses, and all of it gone again.
func TestNetworkOptions(t *testing.T) {
	b := up(t, options{before: preset(t)})
	b.network("web", "--subnet", "10.55.0.0/24", "--gateway", "10.55.0.9", "--ip-range", "10.55.0.128/25", "--aux-address", "nas=10.55.0.130",
		"--ipv6", "--subnet", "fd55::/64", "-o", "com.docker.network.bridge.name=web0", "-o", "com.docker.network.driver.mtu=1400")
	links, err := b.Links(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"bridge", "10.55.0.9/24", "fd55::1/64"} {
		if !strings.Contains(fmt.Sprint(links["web0"]), want) {
			t.Errorf("web0 lacks %s: %s", want, links["web0"])
		}
	}
	c := b.serveOn("web")
	if a := b.addr(c, "web").String(); a != "10.55.0.128" {
		t.Errorf("the first container has %s", a)
	}
	if a := b.addr(b.serveOn("web"), "web").String(); a != "10.55.0.129" {
		t.Errorf("the second container has %s", a)
	}
	if a := b.addr(b.serveOn("web"), "web").String(); a != "10.55.0.131" { // .130 is the aux address
		t.Errorf("the third container has %s", a)
	}
	for _, path := range []string{"/sys/class/net/eth0/mtu"} {
		if mtu, err := c.Run(t.Context(), "/bin/busybox", "cat", path); err != nil || strings.TrimSpace(mtu) != "1400" {
			t.Errorf("MTU in the container: %s %v", mtu, err)
		}
	}
	if mtu := b.run("cat", "/sys/class/net/web0/mtu"); strings.TrimSpace(mtu) != "1400" {
		t.Errorf("MTU of the bridge: %s", mtu)
	}
	static := b.serveOn("web", "--ip", "10.55.0.77", "--ip6", "fd55::77", "--mac-address", "02:42:ac:11:00:77")
	if a := b.addr(static, "web").String(); a != "10.55.0.77" {
		t.Errorf("--ip gave %s", a)
	}
	if a := b.addr6(static, "web").String(); a != "fd55::77" {
		t.Errorf("--ip6 gave %s", a)
	}
	if mac, err := static.Run(t.Context(), "/bin/busybox", "cat", "/sys/class/net/eth0/address"); err != nil || strings.TrimSpace(mac) != "02:42:ac:11:00:77" {
		t.Errorf("--mac-address gave %s %v", mac, err)
	}
	mac, err := c.Run(t.Context(), "/bin/busybox", "cat", "/sys/class/net/eth0/address")
	if said := b.do("inspect", "-f", `{{.NetworkSettings.Networks.web.MacAddress}}`, c.Name); err != nil || said != strings.TrimSpace(mac) {
		t.Errorf("docker says %s, the link has %s (%v)", said, mac, err)
	}
	lab.Reaches(t, c, "tcp", "10.55.0.77:80")
	lab.Reaches(t, c, "tcp", "[fd55::77]:80")
	b.do(append([]string{"rm", "-f"}, strings.Fields(b.do("ps", "-q"))...)...)
	b.do("network", "rm", "web")
	b.nothingLeft()
}

// TestPools: what is chosen, what is avoided, what is exhausted.
func TestPools(t *testing.T) {
	b := up(t, options{
		serve: []string{"--default-address-pool", "base=10.30.0.0/22,size=24", "--default-address-pool", "base=fd30::/62,size=64"},
		before: func(h *lab.Host) {
			if _, err := h.Run(t.Context(), "ip", "route", "add", "10.30.1.0/25", "via", "198.51.100.2", "table", "77"); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Run(t.Context(), "ip", "route", "add", "unreachable", "10.30.2.0/24"); err != nil {
				t.Fatal(err)
			}
		},
	})
	subnet := func(name string) string {
		return b.do("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", name)
	}
	b.network("one")
	b.network("two")
	if got := subnet("one") + subnet("two"); got != "10.30.0.0/24 10.30.3.0/24 " {
		t.Errorf("chosen: %s", got)
	}
	b.fails("--default-address-pool", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "three")
	b.do("network", "rm", "one")
	b.network("three", "--ipv6")
	if got := subnet("three"); got != "10.30.0.0/24 fd30::/64 " {
		t.Errorf("chosen: %s", got)
	}
	b.fails("overlaps", "network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge", "--subnet", "10.30.0.128/25", "four")

	b.network("small", "--subnet", "10.40.0.0/30")
	b.serveOn("small")
	b.fails("no free address", "run", "--rm", "--network", "small", "lab", "true")
	b.fails("in use", "run", "--rm", "--network", "small", "--ip", "10.40.0.2", "lab", "true")
}

// TestManyNetworks: more networks than Docker's own pools have.
func TestManyNetworks(t *testing.T) {
	b := up(t, options{})
	for i := range 60 {
		b.network(fmt.Sprint("n", i))
	}
	var names []string
	for i := range 60 {
		names = append(names, fmt.Sprint("n", i))
	}
	b.do(append([]string{"network", "rm"}, names...)...)
	b.nothingLeft()
}

// TestBadInput: each gets one sentence and leaves nothing behind.
func TestBadInput(t *testing.T) {
	b := up(t, options{})
	b.network("web", "--subnet", "10.60.0.0/24", "-o", "com.docker.network.bridge.name=web0")
	b.run("ip", "link", "add", "taken0", "type", "veth", "peer", "name", "taken1")
	rules, _, links := b.observe()
	for name, c := range map[string]struct {
		args  []string
		words string
	}{
		"bridge name of a network":  {[]string{"-o", "com.docker.network.bridge.name=web0"}, "taken by network"},
		"bridge name of a link":     {[]string{"-o", "com.docker.network.bridge.name=taken0"}, "exists already"},
		"bridge name too long":      {[]string{"-o", "com.docker.network.bridge.name=abcdefghijklmnop"}, "15 characters"},
		"bridge name with a shell":  {[]string{"-o", "com.docker.network.bridge.name=a;b"}, "link name"},
		"bridge name with a path":   {[]string{"-o", "com.docker.network.bridge.name=../x"}, "link name"},
		"bridge name empty":         {[]string{"-o", "com.docker.network.bridge.name="}, "must not be empty"},
		"MTU in words":              {[]string{"-o", "com.docker.network.driver.mtu=large"}, "not a number"},
		"MTU too small":             {[]string{"-o", "com.docker.network.driver.mtu=10"}, "MTU"},
		"option misspelt":           {[]string{"-o", "com.docker.network.bridge.nam=x"}, "did you mean com.docker.network.bridge.name"},
		"own option unknown":        {[]string{"-o", "drawbridge.publsh=host"}, "drawbridge.publish"},
		"option of containers":      {[]string{"-o", "drawbridge.link=db"}, "driver-opt=drawbridge.link="},
		"IPv6 source, no IPv6":      {[]string{"-o", "com.docker.network.host_ipv6=1.2.3.4"}, "cannot be the source address of IPv6"},
		"switch with a word":        {[]string{"-o", "com.docker.network.bridge.enable_icc=off"}, "is not true or false"},
		"gateway mode":              {[]string{"-o", "com.docker.network.bridge.gateway_mode_ipv4=open"}, "is not one of nat"},
		"source address":            {[]string{"-o", "com.docker.network.host_ipv4=2001:db8::1"}, "cannot be the source address of IPv4"},
		"subnet of another network": {[]string{"--subnet", "10.60.0.0/25"}, "overlaps"},
		"subnet of the host":        {[]string{"--subnet", "198.51.100.0/25"}, "ext0"},
		"subnet of Docker":          {[]string{"--subnet", "172.17.0.0/16"}, "docker0"},
		"gateway outside":           {[]string{"--subnet", "10.61.0.0/24", "--gateway", "10.62.0.1"}, "10.62.0.1"},
		"two subnets":               {[]string{"--subnet", "10.61.0.0/24", "--subnet", "10.62.0.0/24"}, "one IPv4 subnet"},
		"multicast subnet":          {[]string{"--subnet", "224.1.0.0/24"}, "multicast"},
	} {
		t.Run(name, func(t *testing.T) {
			b.fails(c.words, append(append([]string{"network", "create", "-d", "drawbridge", "--ipam-driver", "drawbridge"}, c.args...), "bad")...)
		})
	}
	t.Run("sctp on loopback", func(t *testing.T) {
		b.fails("sctp is not served on loopback addresses", "run", "--rm", "--network", "web", "-p", "127.0.0.1:9000:80/sctp", first(b.docker.Image(t.Context())), "true")
	})
	t.Run("raw calls", func(t *testing.T) { rawCalls(t, b) })
	rules2, _, links2 := b.observe()
	if diff := cmp.Diff(rules, rules2) + cmp.Diff(links, links2); diff != "" {
		t.Errorf("something is left behind:\n%s", diff)
	}
	var status struct{ Networks, Endpoints, Ports, Pools int }
	if err := json.Unmarshal([]byte(b.run(binary(t), "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if status.Networks != 1 || status.Endpoints != 0 || status.Ports != 0 || status.Pools != 1 {
		t.Errorf("something is left behind: %+v", status)
	}
}

// rawCalls sends to the plugin what dockerd would not.
func rawCalls(t *testing.T, b *bed) {
	client := &http.Client{Transport: unixsocket.Transport(b.Path("/run/docker/plugins/drawbridge.sock"))}
	defer client.CloseIdleConnections()
	id := strings.Repeat("ab", 32)
	for call, c := range map[string]struct {
		body  string
		words string // empty: must succeed
	}{
		"NetworkDriver.CreateNetwork":               {`{"NetworkID":"../x"}`, "network id"},
		"NetworkDriver.DeleteNetwork":               {`{"NetworkID":"` + id + `"}`, ""},
		"NetworkDriver.CreateEndpoint":              {`{"NetworkID":"` + id + `","EndpointID":"` + id + `","Interface":{"Address":"10.0.0.2/24"}}`, "not known"},
		"NetworkDriver.DeleteEndpoint":              {`{"NetworkID":"` + id + `","EndpointID":"` + id + `"}`, ""},
		"NetworkDriver.Join":                        {`{"NetworkID":"` + id + `","EndpointID":"` + id + `","SandboxKey":"/x"}`, "not known"},
		"NetworkDriver.Leave":                       {`{"NetworkID":"` + id + `","EndpointID":"` + id + `"}`, ""},
		"NetworkDriver.ProgramExternalConnectivity": {`{"NetworkID":"` + id + `","EndpointID":"` + id + `"}`, "not known"},
		"NetworkDriver.RevokeExternalConnectivity":  {`{"NetworkID":"` + id + `","EndpointID":"` + id + `"}`, ""},
		"IpamDriver.RequestPool":                    {`{"Pool":"10.0.0.0"}`, "10.0.0.0"},
		"IpamDriver.ReleasePool":                    {`{"PoolID":"nonsense"}`, ""},
		"IpamDriver.RequestAddress":                 {`{"PoolID":"nonsense"}`, "nonsense"},
		"IpamDriver.ReleaseAddress":                 {`{"PoolID":"nonsense","Address":"10.0.0.1"}`, ""},
	} {
		t.Run(call, func(t *testing.T) {
			for _, body := range []io.Reader{strings.NewReader(c.body), strings.NewReader(""), strings.NewReader(c.body[:len(c.body)/2]), io.LimitReader(endless{}, 100<<20)} {
				res, err := client.Post("http://plugin/"+call, "", body)
				// The server answers before it has read the whole of an endless body, and ends the connection half a second later. Who has not been
				// able to look for the answer by then finds that he cannot go on writing.
				for tries := 0; errors.Is(err, syscall.EPIPE) && tries < 5; tries++ {
					res, err = client.Post("http://plugin/"+call, "", io.LimitReader(endless{}, 100<<20))
				}
				if err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(res.Body)
				res.Body.Close()
				whole := false
				if r, ok := body.(*strings.Reader); ok && r.Size() == int64(len(c.body)) {
					whole = true
				}
				switch {
				case whole && c.words == "" && res.StatusCode != http.StatusOK:
					t.Errorf("%s %s", res.Status, text)
				case whole && c.words != "" && (res.StatusCode == http.StatusOK || !strings.Contains(string(text), c.words)):
					t.Errorf("%s %s", res.Status, text)
				case !whole && (res.StatusCode == http.StatusOK || res.StatusCode == http.StatusNotFound || len(text) > 500):
					t.Errorf("%s %s", res.Status, text)
				}
			}
		})
	}
}

// endless is a body without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
