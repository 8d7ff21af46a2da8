package state

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

// FuzzParse: whatever is taken is harmless in a rule, a kernel name or a log line, and whatever is refused is refused
// in one sentence.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "0123456789ab", strings.Repeat("f", 64), "02:42:0a:00:00:02", "0242.0a00.0002", "nat-unprotected", "eth0:eth1", "br-0123456789ab", "web.db_1", "10.0.0.1", "fe80::1%eth0",
		"\xff\xfe", "aaaaaaaaaaaa\n", "eth0:;reboot", `a"b`, strings.Repeat(":", 1000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		check := func(what string, err error) {
			switch {
			case err != nil && (strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 600):
				t.Errorf("%s: error is not one sentence: %q", what, err)
			case err == nil && (strings.ContainsAny(s, " \t\r\n\x00\"'\\;$`|&<>(){}*+!") || len(s) > 64*(maxIfName+1)):
				t.Errorf("%s takes %q", what, s)
			}
		}
		_, err := ParseNetworkID(s)
		check("ParseNetworkID", err)
		_, err = ParseEndpointID(s)
		check("ParseEndpointID", err)
		_, err = ParseGatewayMode(s)
		check("ParseGatewayMode", err)
		names, err := ParseLinkNames(s)
		check("ParseLinkNames", err)
		for _, name := range names.All() {
			if CheckLinkName(name) != nil {
				t.Errorf("ParseLinkNames(%q) has %q", s, name)
			}
		}
		check("CheckLinkName", CheckLinkName(s))
		check("CheckName", CheckName(s))
		mac, err := ParseMAC(s)
		check("ParseMAC", err)
		if again, err2 := ParseMAC(mac.String()); err == nil && (err2 != nil || again != mac) {
			t.Errorf("ParseMAC(%q) = %v, read again %v, %v", s, mac, again, err2)
		}
		if text := Clip(s); len(text) > 83 || strconv.Quote(text) != `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text)+`"` {
			t.Errorf("Clip(%q) = %q", s, text)
		}
		if owner := OwnerOf(s); owner != (Scope{}) && !OurAlias(s) && !strings.HasPrefix(s, "network ") && !strings.HasPrefix(s, "endpoint ") {
			t.Errorf("a link with alias %q is of %+v", s, owner)
		}
		if a, err := netip.ParseAddr(s); err == nil {
			check4, check6 := CheckSource4(a), CheckSource6(a)
			if check4 == nil && check6 == nil {
				t.Errorf("%v is a source of both families", a)
			}
		}
	})
}
