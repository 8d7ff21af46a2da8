package netlinkattr

import (
	"bytes"
	"testing"

	"github.com/mdlayher/netlink"
)

func TestAll(t *testing.T) {
	inner, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 3, Data: []byte("abc")}, {Type: 4}})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := netlink.MarshalAttributes([]netlink.Attribute{{Type: 1, Data: []byte{1, 2, 3, 4}}, {Type: netlink.Nested | 2, Data: inner}})
	if err != nil {
		t.Fatal(err)
	}
	count := func(b []byte) (n int) {
		for range All(b) {
			n++
		}
		return n
	}
	for kind, value := range All(whole) {
		if kind == 2 && (!bytes.Equal(value, inner) || count(value) != 2) {
			t.Errorf("attribute 2 holds %v", value)
		}
	}
	if n := count(whole); n != 2 {
		t.Errorf("%d attributes, want 2", n)
	}
	for cut := range whole {
		if n := count(whole[:cut]); n > 1 {
			t.Errorf("%d attributes in the first %d bytes", n, cut)
		}
	}
	for range All(whole) {
		break
	}
}
