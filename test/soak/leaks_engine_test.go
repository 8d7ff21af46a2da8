//go:build engine

package soak

import (
	"fmt"
	"strings"
)

// collect removes what a user would not wait for five minutes to go: what Docker has forgotten because the plugin was away, or was killed before it
// answered.
func (m *machine) collect() {
	m.t.Helper()
	out, err := m.Run(m.t.Context(), m.program(), "gc")
	if err != nil {
		m.t.Error(err)
	}
	m.t.Logf("drawbridge gc: %s", strings.TrimSpace(out))
}

// nothingLeft checks that of us nothing is left, some time after all was removed.
func (m *machine) nothingLeft() {
	m.t.Helper()
	for what, look := range map[string]func() (string, error){
		"state": m.stateLeft, "links": m.linksLeft, "rules": m.rulesLeft, "sets": m.setsLeft, "sockets": m.socketsLeft, "zones": m.zonesLeft,
	} {
		err := m.within(m.patience, func() error {
			left, err := look()
			if err == nil && left != "" {
				err = fmt.Errorf("left: %s", left)
			}
			return err
		})
		if err != nil {
			m.t.Errorf("%s: %v", what, err)
		}
	}
}

// purged checks that the command for it takes away the rest.
func (m *machine) purged() {
	m.t.Helper()
	if err := m.plugin.Stop(); err != nil {
		m.t.Error(err)
	}
	if _, err := m.Run(m.t.Context(), m.program(), "purge"); err != nil {
		m.t.Error(err)
	}
	rules, err1 := m.Rules(m.t.Context())
	tables, err2 := m.NFTables(m.t.Context())
	if text := strings.ToLower(rules + tables); err1 != nil || err2 != nil || strings.Contains(text, "drawbridge") {
		m.t.Errorf("left behind a purge: %v %v\n%s", err1, err2, text)
	}
}

func (m *machine) stateLeft() (string, error) {
	s, err := m.status()
	if err != nil || s.Networks+s.Endpoints+s.Ports+s.Pools+len(s.Errors) == 0 {
		return "", err
	}
	return fmt.Sprintf("%+v", s), nil
}

// guard is the chain that stays by itself when the last network is gone, for as long as it was we who turned forwarding on.
const guard = "DRAWBRIDGE-GUARD"

// ours are the lines that have our name.
func ours(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		if strings.Contains(strings.ToLower(line), "drawbridge") && !strings.Contains(line, guard) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return strings.Join(out, "\n")
}

func (m *machine) linksLeft() (string, error) {
	links, err := m.Links(m.t.Context())
	var out []string
	for name, link := range links {
		if strings.HasPrefix(name, "br-") || strings.HasPrefix(name, "veth") || strings.Contains(link, "drawbridge") {
			out = append(out, name+" "+link)
		}
	}
	return strings.Join(out, "\n"), err
}

func (m *machine) rulesLeft() (string, error) {
	rules, err := m.Rules(m.t.Context())
	if err != nil {
		return "", err
	}
	tables, err := m.NFTables(m.t.Context())
	return ours(rules + tables), err
}

func (m *machine) setsLeft() (string, error) {
	sets, err := m.Run(m.t.Context(), "ipset", "list", "-n")
	return ours(sets), err
}

func (m *machine) socketsLeft() (string, error) {
	sockets, err := m.Run(m.t.Context(), "ss", "-H", "-l", "-n", "-t", "-u", "-p")
	return ours(sockets), err
}

// zonesLeft are bridges in a zone. Docker's own is docker0.
func (m *machine) zonesLeft() (string, error) {
	out, err := m.Run(m.t.Context(), "firewall-cmd", "--zone=docker", "--list-interfaces")
	var left []string
	for link := range strings.FieldsSeq(out) {
		if strings.HasPrefix(link, "br-") {
			left = append(left, link)
		}
	}
	return strings.Join(left, " "), err
}
