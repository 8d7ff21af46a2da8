//go:build load

package load

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// callTime bounds a call of the engine, a little beyond what the plugin gives itself for it.
const callTime = 17 * time.Second

// call is one of dockerd's.
type call struct {
	name string // as NetworkDriver.Join
	args object
}

// pair are two calls that come in the same instant, and how many of them may succeed.
type pair struct {
	a, b    call
	succeed []int
	// then looks at what became of it, when it is not nil.
	then func() error
}

// twice makes the calls of a network's life by two callers at once, of one network after the other, until it is over. It
// is done with one at least.
func (m *machine) twice(over <-chan struct{}) {
	for n := 0; ; n++ {
		for _, p := range m.life(n%200 + 1) {
			if err := m.both(p); err != nil {
				m.t.Errorf("two callers, network %d: %v", n, err)
				return
			}
		}
		select {
		case <-over:
			return
		default:
		}
	}
}

// both makes the two calls at once.
func (m *machine) both(p pair) error {
	var wrong [2]error
	var callers sync.WaitGroup
	start := make(chan struct{})
	for i, c := range []call{p.a, p.b} {
		callers.Go(func() {
			<-start
			wrong[i] = m.call(c)
		})
	}
	close(start)
	callers.Wait()
	succeeded := 0
	for _, err := range wrong {
		var no refusal
		switch {
		case err == nil:
			succeeded++
		case !errors.As(err, &no) || strings.Contains(err.Error(), context.DeadlineExceeded.Error()):
			return err
		}
	}
	if !slices.Contains(p.succeed, succeeded) {
		return fmt.Errorf("%s %v and %s %v: %d succeed, not %v: %v", p.a.name, p.a.args, p.b.name, p.b.args, succeeded, p.succeed, errors.Join(wrong[:]...))
	}
	if p.then != nil {
		return p.then()
	}
	return nil
}

func (m *machine) call(c call) error {
	ctx, cancel := context.WithTimeout(m.t.Context(), callTime)
	defer cancel()
	defer m.figures.timed("calls by two", time.Now())
	_, err := m.driver.do(ctx, http.MethodPost, "/"+c.name, c.args)
	return err
}

// subject makes the calls about one network and one endpoint of it.
type subject struct {
	number            int
	network, endpoint string
}

func (s subject) pool() call {
	return call{"IpamDriver.RequestPool", object{"AddressSpace": "drawbridge-local", "Pool": fmt.Sprintf("10.240.%d.0/24", s.number)}}
}

func (s subject) create(masquerade string) call {
	return call{"NetworkDriver.CreateNetwork", object{
		"NetworkID": s.network,
		"Options": object{
			"com.docker.network.generic":     object{"com.docker.network.bridge.enable_ip_masquerade": masquerade},
			"com.docker.network.enable_ipv6": true,
		},
		"IPv4Data": []object{{"Pool": fmt.Sprintf("10.240.%d.0/24", s.number), "Gateway": fmt.Sprintf("10.240.%d.1/24", s.number)}},
		"IPv6Data": []object{{"Pool": fmt.Sprintf("fd00:240:%d::/64", s.number), "Gateway": fmt.Sprintf("fd00:240:%d::1/64", s.number)}},
	}}
}

func (s subject) about(name string, more object) call {
	args := object{"NetworkID": s.network, "EndpointID": s.endpoint}
	for key, value := range more {
		args[key] = value
	}
	return call{"NetworkDriver." + name, args}
}

func (s subject) attach(last int) call {
	return s.about("CreateEndpoint", object{"Interface": object{
		"Address": fmt.Sprintf("10.240.%d.%d/24", s.number, last), "AddressIPv6": fmt.Sprintf("fd00:240:%d::%d/64", s.number, last),
	}})
}

func (s subject) join(sandbox string) call {
	return s.about("Join", object{"SandboxKey": "/var/run/docker/netns/" + sandbox})
}

func (s subject) publish(ports ...int) call {
	var list []object
	for _, p := range ports {
		list = append(list, object{"Proto": 6, "Port": 80, "HostPort": p, "HostPortEnd": p})
	}
	return s.about("ProgramExternalConnectivity", object{"Options": object{"com.docker.network.portmap": list}})
}

// life is that of a network and an endpoint, each call by two callers. Where their arguments exclude each other, one of them
// must be told so; the end of something always succeeds, and what comes too late for it has no effect.
func (m *machine) life(number int) []pair {
	s := subject{number, fmt.Sprintf("%012d%052d", number, 0), fmt.Sprintf("e%010d%053d", number, 0)}
	all, one, some := []int{2}, []int{1}, []int{1, 2}
	remove, detach, leave := s.about("DeleteNetwork", nil), s.about("DeleteEndpoint", nil), s.about("Leave", nil)
	release := call{"IpamDriver.ReleasePool", object{"PoolID": "drawbridge/" + s.pool().args["Pool"].(string)}}
	published := func(sets ...string) func() error { return func() error { return m.published(s.endpoint, sets...) } }
	return []pair{
		{s.pool(), s.pool(), one, nil},
		{s.create("true"), s.create("false"), one, nil},
		{remove, remove, all, nil},
		{s.create("true"), s.create("true"), all, nil},
		{s.attach(2), s.attach(3), one, nil},
		{detach, detach, all, nil},
		{s.attach(2), s.attach(2), all, nil},
		{s.join("a"), s.join("a"), all, nil},
		{s.join("a"), s.join("b"), all, nil},
		{s.publish(30000), s.publish(30000), all, published("30000")},
		{s.publish(30001, 30002), s.publish(30002, 30003), all, published("30001 30002", "30002 30003")},
		{leave, s.publish(30004), some, published("", "30004")},
		{leave, leave, all, published("")},
		{s.join("c"), s.join("c"), all, nil},
		{s.publish(30005), s.publish(30006), all, published("30005", "30006")},
		{detach, s.publish(30007), some, published("")},
		{detach, s.join("d"), some, nil}, // it is gone already
		{s.attach(2), detach, all, nil},
		{detach, detach, all, nil},
		{s.attach(2), s.attach(2), all, nil},
		{s.join("e"), detach, some, nil},
		{s.attach(2), remove, some, published("")},
		{remove, remove, all, nil},
		{s.create("true"), remove, all, nil},
		{remove, remove, all, nil},
		{release, release, all, nil},
	}
}

// published checks that the endpoint's host ports are those of one of the sets, wholly.
func (m *machine) published(endpoint string, sets ...string) error {
	ports, err := m.status.Ports(m.t.Context())
	if err != nil {
		return err
	}
	var have []string
	for _, p := range ports {
		if number := fmt.Sprint(p.HostPort); string(p.Endpoint) == endpoint && !slices.Contains(have, number) {
			have = append(have, number)
		}
	}
	slices.Sort(have)
	if got := strings.Join(have, " "); !slices.Contains(sets, got) {
		return fmt.Errorf("the endpoint publishes %q, not one of %q", got, sets)
	}
	return nil
}
