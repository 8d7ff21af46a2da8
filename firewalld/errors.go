package firewalld

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// kind is what an error means for what we do next.
type kind string

const (
	other        kind = ""
	silent       kind = "silent"        // no answer within the timeout
	gone         kind = "gone"          // firewalld or the bus went away
	noMethod     kind = "no method"     // this version does not know the call
	denied       kind = "denied"        // not for this user
	panicMode    kind = "panic mode"    // firewalld refuses all changes
	nameTaken    kind = "name taken"    // a permanent object of that name exists
	alreadyBound kind = "already bound" // the interface is in a zone: this one or another
	unwritten    kind = "unwritten"     // it could not write its own rules
	notBound     kind = "not bound"     // the interface is in no zone, or in another
)

// codes are the words with which firewalld begins its messages (firewall/errors.py).
var codes = map[string]kind{
	"NAME_CONFLICT":     nameTaken,
	"ZONE_ALREADY_SET":  alreadyBound,
	"ALREADY_ENABLED":   alreadyBound,
	"ALREADY_SET":       alreadyBound,
	"ZONE_CONFLICT":     alreadyBound,
	"UNKNOWN_INTERFACE": notBound,
	"NOT_ENABLED":       notBound,
	"PANIC_MODE":        panicMode,
	"COMMAND_FAILED":    unwritten,
	"NOT_AUTHORIZED":    denied,
	"ACCESS_DENIED":     denied,
}

// names are the last parts of D-Bus error names, the bus's own and firewalld's.
var names = map[string]kind{
	"UnknownMethod":          noMethod,
	"UnknownInterface":       noMethod,
	"UnknownObject":          noMethod,
	"ServiceUnknown":         gone,
	"NameHasNoOwner":         gone,
	"NoReply":                gone,
	"Disconnected":           gone,
	"Timeout":                silent,
	"TimedOut":               silent,
	"AccessDenied":           denied,
	"NotAuthorizedException": denied,
}

// classify says what err means. It is the one place that reads error texts: firewalld
// names all its errors org.fedoraproject.FirewallD1.Exception and puts the code in front of
// the message, with or without more behind it; in other places the code is
// the name.
func classify(err error) kind {
	var reply dbus.Error
	switch {
	case err == nil:
		return other
	case errors.Is(err, context.DeadlineExceeded):
		return silent
	case errors.Is(err, dbus.ErrClosed), errors.Is(err, io.EOF):
		return gone
	case !errors.As(err, &reply):
		return other
	}
	word, _, _ := strings.Cut(reply.Error(), ":")
	if k, ok := codes[strings.TrimSpace(word)]; ok {
		return k
	}
	name := reply.Name[strings.LastIndex(reply.Name, ".")+1:]
	if k, ok := codes[name]; ok {
		return k
	}
	return names[name]
}

// endsPass reports whether err means that every further call would fail in the same way.
func endsPass(err error) bool {
	switch classify(err) {
	case silent, gone, denied:
		return true
	}
	return errors.Is(err, context.Canceled)
}

// callError is a call to firewalld that failed. Its text says what a user can do about it.
type callError struct {
	Method string // such as zone.addInterface
	Took   time.Duration
	Err    error
}

func (e *callError) Unwrap() error { return e.Err }

func (e *callError) Error() string {
	switch classify(e.Err) {
	case silent:
		return fmt.Sprintf("firewalld is on the D-Bus system bus but did not answer %s within %s: look at `systemctl status firewalld`",
			e.Method, e.Took.Round(10*time.Millisecond))
	case gone:
		return fmt.Sprintf("firewalld went away during %s: try again", e.Method)
	case denied:
		return fmt.Sprintf("firewalld does not allow %s: drawbridge must run as root (%s)", e.Method, e.text())
	case panicMode:
		return fmt.Sprintf("firewalld is in panic mode and refuses %s: end it with `firewall-cmd --panic-off`", e.Method)
	}
	if classify(e.Err) == unwritten && e.Method != "reload" {
		// Mostly because somebody has flushed them: firewalld adds to chains that it takes for there.
		return fmt.Sprintf("firewalld cannot write its own rules: restart it, `systemctl restart firewalld` (%s: %s)", e.Method, e.text())
	}
	return fmt.Sprintf("calling firewalld's %s: %s", e.Method, e.text())
}

// text is what firewalld said, in one line and without what follows its first words: of what it did not expect itself it sends the
// whole traceback, and of what nftables refused all that it was given.
func (e *callError) text() string {
	text := []rune(strings.Join(strings.Fields(e.Err.Error()), " "))
	if len(text) > maxText {
		return string(text[:maxText]) + " …"
	}
	return string(text)
}

// maxText is how much of firewalld's words is told.
const maxText = 160
