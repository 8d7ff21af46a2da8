package firewalld

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

func TestClassify(t *testing.T) {
	reply := func(name, text string) error {
		var body []any
		if text != "" {
			body = []any{text}
		}
		return &callError{Method: "m", Err: dbus.Error{Name: name, Body: body}}
	}
	const exception = service + ".Exception"
	rows := []struct {
		name string
		err  error
		want kind
	}{
		{"nil", nil, other},
		{"code and text", reply(exception, "ZONE_ALREADY_SET: 'br' already bound to 'docker'"), alreadyBound},
		{"code alone", reply(exception, "ZONE_CONFLICT"), alreadyBound},
		{"already enabled", reply(exception, "ALREADY_ENABLED: br"), alreadyBound},
		{"name conflict", reply(exception, "NAME_CONFLICT: new_zone(): 'docker'"), nameTaken},
		{"unknown interface", reply(exception, "UNKNOWN_INTERFACE: br"), notBound},
		{"code as the error's name", reply(service+".Exception.NAME_CONFLICT", "it exists"), nameTaken},
		{"panic mode", reply(exception, "PANIC_MODE"), panicMode},
		{"a code inside the text is no code", reply(exception, "COMMAND_FAILED: not NAME_CONFLICT"), unwritten},
		{"another code", reply(exception, "INVALID_ZONE: docker"), other},
		{"not authorised", reply(service+".NotAuthorizedException", "Not Authorized(uid): x"), denied},
		{"the bus forbids", reply("org.freedesktop.DBus.Error.AccessDenied", "Rejected send message"), denied},
		{"unknown method", reply("org.freedesktop.DBus.Error.UnknownMethod", "Method \"getPolicies\" doesn't exist"), noMethod},
		{"unknown interface of the object", reply("org.freedesktop.DBus.Error.UnknownInterface", ""), noMethod},
		{"nobody there", reply("org.freedesktop.DBus.Error.ServiceUnknown", "The name is not activatable"), gone},
		{"died while asked", reply("org.freedesktop.DBus.Error.NoReply", "Message recipient disconnected"), gone},
		{"connection closed", fmt.Errorf("x: %w", dbus.ErrClosed), gone},
		{"bus died", &callError{Err: io.EOF}, gone},
		{"deadline", fmt.Errorf("x: %w", context.DeadlineExceeded), silent},
		{"something else", errors.New("NAME_CONFLICT"), other},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := classify(row.err); got != row.want {
				t.Errorf("classified as %q, want %q", got, row.want)
			}
		})
	}
}

// TestUnwritten: firewalld sends all that it gave to nftables with its refusal.
func TestUnwritten(t *testing.T) {
	reason := "COMMAND_FAILED: 'python-nftables' failed: internal:0:0-0: Error: No such file\n" + strings.Repeat("{\"nftables\": []}\n", 1000)
	refusal := dbus.Error{Name: service + ".Exception", Body: []any{reason}}
	text := (&callError{Method: "zone.addInterface", Err: refusal}).Error()
	if !strings.Contains(text, "restart it") || len(text) > 300 || strings.Contains(text, "\n") {
		t.Errorf("told %d bytes: %s", len(text), text)
	}
	if text := (&callError{Method: "reload", Err: refusal}).Error(); strings.Contains(text, "restart it") {
		t.Errorf("a reload that fails says what only the others do: %s", text)
	}
}
