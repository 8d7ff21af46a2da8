package hostfw

import (
	"encoding/binary"
	"reflect"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// nest makes an attribute of attributes.
func nest(kind uint16, attributes ...netlink.Attribute) netlink.Attribute {
	data, err := netlink.MarshalAttributes(attributes)
	if err != nil {
		panic(err)
	}
	return netlink.Attribute{Type: kind | unix.NLA_F_NESTED, Data: data}
}

func value(kind uint16, n uint32) netlink.Attribute {
	return netlink.Attribute{Type: kind, Data: binary.BigEndian.AppendUint32(nil, n)}
}

// native is a value of a register.
func native(kind uint16, n uint32) netlink.Attribute {
	return nest(kind, netlink.Attribute{Type: unix.NFTA_DATA_VALUE, Data: binary.NativeEndian.AppendUint32(nil, n)})
}

// expression is one of a rule's.
func expression(name string, attributes ...netlink.Attribute) netlink.Attribute {
	return nest(unix.NFTA_LIST_ELEM, named(unix.NFTA_EXPR_NAME, name), nest(unix.NFTA_EXPR_DATA, attributes...))
}

func verdict(code int32, chain ...netlink.Attribute) netlink.Attribute {
	return expression("immediate", value(unix.NFTA_IMMEDIATE_DREG, 0),
		nest(unix.NFTA_IMMEDIATE_DATA, nest(unix.NFTA_DATA_VERDICT, append(chain, value(unix.NFTA_VERDICT_CODE, uint32(code)))...)))
}

// TestExpressions: what real rules of this machine's nft and kernel do not show (see TestLook).
func TestExpressions(t *testing.T) {
	state := expression("ct", value(unix.NFTA_CT_DREG, 1), value(unix.NFTA_CT_KEY, unix.NFT_CT_STATE))
	mask := func(register, of uint32) netlink.Attribute {
		return expression("bitwise", value(unix.NFTA_BITWISE_SREG, register), value(unix.NFTA_BITWISE_DREG, 1),
			native(unix.NFTA_BITWISE_MASK, of), native(unix.NFTA_BITWISE_XOR, 0))
	}
	compare := func(op, with uint32) netlink.Attribute {
		return expression("cmp", value(unix.NFTA_CMP_SREG, 1), value(unix.NFTA_CMP_OP, op), native(unix.NFTA_CMP_DATA, with))
	}
	drop := verdict(0)
	for _, tt := range []struct {
		name        string
		expressions []netlink.Attribute
		want        rule
	}{
		{"nothing", nil, rule{}},
		{"accept", []netlink.Attribute{verdict(nfAccept)}, rule{accepts: true}},
		{"return", []netlink.Attribute{verdict(unix.NFT_RETURN)}, rule{leaves: true}},
		{"drop", []netlink.Attribute{drop}, rule{refuses: true}},
		{"a verdict that is not known", []netlink.Attribute{verdict(77)}, rule{refuses: true, accepts: true, beyond: "queue"}},
		{"queue as a verdict", []netlink.Attribute{verdict(3)}, rule{refuses: true, accepts: true, beyond: "queue"}},
		{"queue", []netlink.Attribute{expression("queue")}, rule{refuses: true, accepts: true, beyond: "queue"}},
		{"synproxy", []netlink.Attribute{expression("synproxy")}, rule{refuses: true, accepts: true, beyond: "synproxy"}},
		{"an expression that is not known", []netlink.Attribute{expression("news")}, rule{refuses: true, accepts: true, beyond: "news"}},
		{"a target that is not known", []netlink.Attribute{expression("target", named(unix.NFTA_TARGET_NAME, "NEWS"))}, rule{refuses: true, accepts: true, beyond: "NEWS"}},
		{"jump", []netlink.Attribute{verdict(unix.NFT_JUMP, named(unix.NFTA_VERDICT_CHAIN, "x"))}, rule{jumps: "x"}},
		{"goto", []netlink.Attribute{verdict(unix.NFT_GOTO, named(unix.NFTA_VERDICT_CHAIN, "x"))}, rule{jumps: "x", leaves: true}},
		{"invalid", []netlink.Attribute{state, mask(1, 1), compare(unix.NFT_CMP_NEQ, 0), drop}, rule{}},
		{"not masked", []netlink.Attribute{state, compare(unix.NFT_CMP_NEQ, 0), drop}, rule{refuses: true}},
		{"another mask", []netlink.Attribute{state, mask(1, 3), compare(unix.NFT_CMP_NEQ, 0), drop}, rule{refuses: true}},
		{"another register", []netlink.Attribute{state, mask(2, 1), compare(unix.NFT_CMP_NEQ, 0), drop}, rule{refuses: true}},
		{"none of it", []netlink.Attribute{state, mask(1, 1), compare(unix.NFT_CMP_EQ, 0), drop}, rule{refuses: true}},
		{"another key", []netlink.Attribute{
			expression("ct", value(unix.NFTA_CT_DREG, 1), value(unix.NFTA_CT_KEY, unix.NFT_CT_MARK)), mask(1, 1), compare(unix.NFT_CMP_NEQ, 0), drop,
		}, rule{refuses: true}},
		{"overwritten", []netlink.Attribute{state, mask(1, 1), expression("meta", value(unix.NFTA_META_DREG, 1), value(unix.NFTA_META_KEY, unix.NFT_META_MARK)), compare(unix.NFT_CMP_NEQ, 0), drop}, rule{refuses: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			list, err := netlink.MarshalAttributes(tt.expressions)
			if err != nil {
				t.Fatal(err)
			}
			if got := parseExpressions(unix.NFPROTO_INET, list); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("read %+v, want %+v", got, tt.want)
			}
		})
	}
}

// FuzzMessages reads what the kernel never sends.
func FuzzMessages(f *testing.F) {
	list, err := netlink.MarshalAttributes([]netlink.Attribute{verdict(0), expression("match", named(unix.NFTA_MATCH_NAME, "conntrack"))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(list)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		parseRule(unix.NFPROTO_INET, data)
		parseExpressions(unix.NFPROTO_INET, data)
		parseSet(data)
		parseChain(data)
		_ = errno(data)
		if n := len(parseElements(data)); n > len(data) {
			t.Errorf("%d elements of %d bytes", n, len(data))
		}
	})
}
