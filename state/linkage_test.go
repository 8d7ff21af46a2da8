package state

import (
	"strings"
	"testing"
)

func TestLinkages(t *testing.T) {
	n := Network{ID: netID, NoICC: true}
	at := func(id EndpointID, name string, links ...string) Endpoint {
		return Endpoint{ID: id, Network: netID, Name: name, Links: links}
	}
	elsewhere := at("e", "db")
	elsewhere.Network = "other"
	for name, c := range map[string]struct {
		endpoints []Endpoint
		want      string
	}{
		"none":                   {[]Endpoint{at("a", "db"), at("b", "")}, ""},
		"one":                    {[]Endpoint{at("a", "db"), at("b", "", "db")}, "b>a"},
		"the other order":        {[]Endpoint{at("a", "", "db"), at("b", "db")}, "a>b"},
		"both ways":              {[]Endpoint{at("a", "x", "y"), at("b", "y", "x")}, "a>b b>a"},
		"to itself":              {[]Endpoint{at("a", "x", "x")}, ""},
		"not there yet":          {[]Endpoint{at("a", "", "db")}, ""},
		"several of a name":      {[]Endpoint{at("a", "", "db"), at("b", "db"), at("c", "db")}, "a>b a>c"},
		"several links":          {[]Endpoint{at("a", "", "x", "y"), at("b", "x"), at("c", "y")}, "a>b a>c"},
		"in another network":     {[]Endpoint{at("a", "", "db"), elsewhere}, ""},
		"from another network's": {[]Endpoint{at("a", "db"), {ID: "f", Network: "other", Links: []string{"db"}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, l := range n.Linkages(c.endpoints) {
				got = append(got, string(l.From.ID)+">"+string(l.To.ID))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("%s, want %s", s, c.want)
			}
		})
	}
	n.NoICC = false
	if got := n.Linkages([]Endpoint{at("a", "db"), at("b", "", "db")}); got != nil {
		t.Errorf("links on a network that keeps nobody apart: %v", got)
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"db": true, "my_db-1.2": true, "0": true, strings.Repeat("x", 63): true,
		"": false, "a b": false, "a,b": false, "-x": false, ".": false, "a/b": false, "ä": false, "a\n": false, strings.Repeat("x", 64): false,
	} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestGatewayModes(t *testing.T) {
	for _, word := range GatewayModes() {
		m, err := ParseGatewayMode(word)
		if err != nil || m.String() != word {
			t.Errorf("%s: %s %v", word, m, err)
		}
	}
	for _, bad := range []string{"", "NAT", "bridge", strings.Repeat("x", 1<<20)} {
		if _, err := ParseGatewayMode(bad); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
}

func TestLinkNameLists(t *testing.T) {
	for list, n := range map[string]int{"eth0": 1, "eth0:wg-1": 2, "": -1, "eth0:": -1, ":": -1, "eth0 eth1": -1, "a;b": -1} {
		got, err := ParseLinkNames(list)
		if (err == nil) != (n > 0) || n > 0 && len(got.All()) != n {
			t.Errorf("%q: %v %v", list, got, err)
		}
	}
	if l := JoinLinkNames([]string{"b", "a"}); l != "a:b" || len(l.All()) != 2 {
		t.Error(l)
	}
	if l := JoinLinkNames(nil); l != "" || l.All() != nil {
		t.Error(l)
	}
}
