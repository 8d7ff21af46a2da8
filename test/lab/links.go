package lab

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// link is the part of ip -json's words that says what a link is.
type link struct {
	Name  string   `json:"ifname"`
	Flags []string `json:"flags"`
	MTU   int      `json:"mtu"`
	Group string   `json:"group"`
	// IfAlias is where a program leaves its mark.
	IfAlias string `json:"ifalias"`
	Master  string `json:"master"`
	Info    struct {
		Kind string `json:"info_kind"`
	} `json:"linkinfo"`
	Addrs []struct {
		Local string `json:"local"`
		Bits  int    `json:"prefixlen"`
		Scope string `json:"scope"`
	} `json:"addr_info"`
}

func parseLinks(text string) (map[string]string, error) {
	var links []link
	if err := json.Unmarshal([]byte(text), &links); err != nil {
		return nil, fmt.Errorf("reading ip's list of links: %w", err)
	}
	all := map[string]string{}
	for _, l := range links {
		all[l.Name] = l.String()
	}
	return all, nil
}

func (l link) String() string {
	state := "down"
	if slices.Contains(l.Flags, "UP") {
		state = "up"
	}
	words := []string{l.Info.Kind, state, fmt.Sprintf("mtu %d group %s", l.MTU, l.Group)}
	if l.Master != "" {
		words = append(words, "master "+l.Master)
	}
	if l.IfAlias != "" {
		words = append(words, fmt.Sprintf("alias %q", l.IfAlias))
	}
	for _, a := range l.Addrs {
		// Link-local addresses are made of the hardware address.
		if a.Scope != "link" {
			words = append(words, fmt.Sprintf("%s/%d", a.Local, a.Bits))
		}
	}
	return strings.TrimSpace(strings.Join(words, " "))
}
