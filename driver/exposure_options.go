package driver

import (
	"fmt"
	"strings"

	"github.com/drawbridge-net/drawbridge/state"
)

// exposureOptions say how and by whom published ports are reached, of a network or of one container.
func exposureOptions[T any](of func(*T) *state.Exposure, mode, otherwise string) []option[T] {
	return []option[T]{
		{Option{
			ownPrefix + "publish", strings.Join(state.PublishModes(), "|"), mode,
			"How clients from outside the host come to published ports. dnat: translated on their way in, past the host's INPUT rules, as with Docker. host: the host's INPUT rules decide, and a socket of the host serves whom they let in. learned: so for a client's first connection, and as with dnat for those of the next seconds. localhost: not at all. auto: learned where a firewall of the host is active, host where that one counts or looks into packets, dnat elsewhere. Containers and the host itself are translated in each mode.",
		}, func(t *T, v string) (err error) {
			of(t).Publish, err = state.ParsePublish(v)
			return err
		}},
		{Option{
			ownPrefix + "publish.from", "addresses and prefixes, 192.0.2.0/24,2001:db8::/32", otherwise,
			"Sources from which published ports may be reached from outside the host, whatever the mode; commas or spaces stand between them. A list without prefixes of a family keeps that family out.",
		}, func(t *T, v string) (err error) {
			of(t).From, err = state.ParsePrefixes(strings.Join(words(v, ", "), ","))
			return err
		}},
		{Option{
			ownPrefix + "publish.iface", "link names, eth0:eth1", otherwise,
			"Links of the host by which published ports may be reached from outside the host, whatever the mode; colons, commas or spaces stand between them. They need not be there yet.",
		}, func(t *T, v string) (err error) {
			of(t).Links, err = state.ParseLinkNames(strings.Join(words(v, ":, "), ":"))
			return err
		}},
	}
}

// words are what stands between separators. Commas are for files and docker network create; in --network of docker run a comma
// ends the option, and spaces take their place.
func words(list, separators string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune(separators, r) })
}

// checkExposure refuses limits of ports on network n that nobody would keep.
func (d *Driver) checkExposure(n state.Network, e state.Exposure) error {
	var flag string
	switch {
	case !e.Limited():
	case d.options.NoRules:
		flag = "--iptables=false"
	case d.options.NoRules6 && !n.V6.IsZero():
		flag = "--ip6tables=false"
	}
	if flag == "" {
		return nil
	}
	return fmt.Errorf("options drawbridge.publish.from and drawbridge.publish.iface need firewall rules, and the daemon runs with %s: leave them out, or start the daemon without the flag", flag)
}

// checkServed refuses ports that somebody wants served by a socket and no socket can serve.
func checkServed(e state.Exposure, requests []state.PortRequest) error {
	if e.Publish != state.PublishHost && e.Publish != state.PublishLearned {
		return nil
	}
	for _, r := range requests {
		if r.Proto == state.SCTP {
			return fmt.Errorf("container port %d/sctp cannot be published with drawbridge.publish=%s, since no socket of the host can serve SCTP: give the container drawbridge.publish=dnat", r.ContainerPort, e.Publish)
		}
	}
	return nil
}
