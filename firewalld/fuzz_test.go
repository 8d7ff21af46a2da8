package firewalld

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// FuzzReply: whatever firewalld or the bus says, it means something, and people are told in one line.
func FuzzReply(f *testing.F) {
	for name, text := range map[string]string{
		service + ".Exception":                              "ZONE_ALREADY_SET: 'br' already bound to 'docker'",
		service + ".NotAuthorizedException":                 "",
		"org.freedesktop.DBus.Error.NoReply":                "Did not receive a reply",
		"org.freedesktop.DBus.Python.dbus.exceptions.Error": "Traceback (most recent call last):\n  File \"x\", line 1\n",
		"": ":",
	} {
		f.Add(name, text)
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		for _, body := range [][]any{nil, {text}, {7, text}, {[]string{text}}} {
			err := &callError{Method: "zone.addInterface", Took: time.Second, Err: dbus.Error{Name: name, Body: body}}
			kind := classify(err)
			if !slices.Contains([]string{"", "silent", "gone", "no method", "denied", "panic mode", "name taken", "already bound", "not bound"}, string(kind)) {
				t.Errorf("%q of %q means %q", name, body, kind)
			}
			if ends := kind == silent || kind == gone || kind == denied; endsPass(err) != ends {
				t.Errorf("%q of %q, %q, ends the pass: %t", name, body, kind, !ends)
			}
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("error is not one line: %q", err)
			}
		}
	})
}
